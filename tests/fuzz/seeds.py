"""The first inputs of each target: forms of our own, and the foreign vectors when
present.
"""

from __future__ import annotations

import gzip
import json
from pathlib import Path
from typing import Any

import orjson

from shared.feed import EntryKind, FeedEntry, FeedPage, encode_page
from shared.jose import base64url
from tests.fuzz.fixtures import GOOD, KEY, MARK, NOW
from tests.support.mutation_values import (
    ENCODINGS,
    VALUES,
    WRITINGS,
    encode_otherwise,
    write_otherwise,
)
from tests.support.tokens import ISSUER, good_claims

VECTORS = Path(__file__).parents[3] / "shared" / "vectors"
#: Vectors per target at most: a run must not spend its time on reading them.
_MOST = 400

_HEADER = orjson.dumps({"alg": "RS256", "typ": "at+jwt", "kid": KEY.kid})
_CLAIMS = orjson.dumps(good_claims(NOW))
_PAGE = FeedPage(
    ISSUER,
    "epoch",
    1,
    9,
    12,
    NOW * 1_000,
    600,
    [FeedEntry(2 + n, kind, "key", n, NOW) for n, kind in enumerate(EntryKind)],
)
_PATHS = (
    b"/ /a/b/ /a//b /a/../b /a/%2e%2e/b /a%2fb /a%5cb /a;x/b /%61pi /%C3%A9 /%ff /%00"
    b" /a?b=/c#d /%252e http://host/a * /a/.well-known /a%20b /a+b /%e2%80%ae"
).split(b" ")
_LINES = (
    b"Authorization: Bearer {T}",
    b"Authorization: Bearer a.b.c",
    b"Authorization: Basic YTpi",
    b"X-Original-URI: /a",
    b"X-Original-Method: GET",
    b"X_Original_URI: /a",
    b"X-Forwarded-Uri: /a, /b",
    b"X-Forwarded-Method: GET",
    b"X-Auth-Subject: evil",
)
_TARGETS = (
    b"/verify/nginx /verify/envoy/a/b?x=1 /verify/caddy?p=/p/lax /verify/haproxy"
    b" /verify/traefik/p/strict /verify/apache/p/default /verify/envoy/p/default/a"
    b" /verify/none /verify/ /elsewhere http://v/verify/nginx /verify/nginx#x"
).split(b" ")
_WIRE_LINES = (
    *_LINES,
    b"Content-Length: 3",
    b"Transfer-Encoding: chunked",
    b"Expect: 100-continue",
    b"Upgrade: h2c\r\nConnection: Upgrade",
    b"Connection: close",
    b"X: \xff\xfe",
)


def seeds_for(target: str) -> list[bytes]:
    """Return the target's seeds."""
    return {
        "verify": _verify,
        "jws": lambda: [*_vector_tokens(), GOOD],
        "base64url": lambda: [b"", b"QQ", b"QUI", b"QUJD", b"QR", b"-_-_", b"QQ=="],
        "json": lambda: [*_json(), *_vector_parts()],
        "forward_auth": _forward_auth,
        "feed": _feed,
        "jwks": _jwks,
        "path": lambda: list(_PATHS),
        "wire": _wire,
    }[target]()


def _with_values(good: dict[str, Any]) -> list[bytes]:
    """Return the object with each member given a value of each kind, and twice."""
    written = []
    for name in good:
        rest = json.dumps({n: v for n, v in good.items() if n != name})[:-1]
        for values in VALUES.values():
            written.append(f"{rest},{json.dumps(name)}:{values[0]}}}")
        written.append(f"{json.dumps(good)[:-1]},{json.dumps(name)}:1}}")
    return [text.encode("utf-8", "surrogatepass") for text in written]


def _json() -> list[bytes]:
    twice = [b'{"a":1,"a":1}', b'{"a":{"b":1,"\\u0062":2}}', b'[{"a":1}]']
    return [_CLAIMS, *twice, *(write_otherwise(_CLAIMS, how) for how in WRITINGS)]


def _verify() -> list[bytes]:
    parts = [_HEADER + b"\0" + claims for claims in _json()]
    headers = [write_otherwise(_HEADER, how) + b"\0" + _CLAIMS for how in WRITINGS]
    values = [_HEADER + b"\0" + claims for claims in _with_values(good_claims(NOW))]
    spelt = [encode_otherwise(GOOD, how) for how in ENCODINGS]
    return [GOOD, *parts, *headers, *values, *spelt, *_vector_tokens()]


def _forward_auth() -> list[bytes]:
    plain = [target + b"\n" + _LINES[0] for target in _TARGETS]
    return plain + [_TARGETS[0] + b"\n" + _LINES[0] + b"\n" + line for line in _LINES]


def _feed() -> list[bytes]:
    page = orjson.loads(encode_page(_PAGE))
    good = [json.dumps(value) for value in page["entries"][0]]
    head = json.dumps({**page, "entries": []})[:-2]
    odd = [
        head + "[" + ",".join([*good[:at], values[0], *good[at + 1 :]]) + "]]}"
        for at in range(len(good))
        for values in VALUES.values()
    ]
    written = [text.encode("utf-8", "surrogatepass") for text in odd]
    return [encode_page(_PAGE), *written, *_with_values(page)]


def _jwks() -> list[bytes]:
    jwk = KEY.jwk.to_wire()
    made = [{"keys": [jwk]}, {"keys": [jwk, jwk]}, {"keys": [{**jwk, "d": "AQAB"}]}]
    even = base64url.encode((KEY.jwk.n - 1).to_bytes(256, "big"))
    made.append({"keys": [{**jwk, "n": even}]})
    odd = [b'{"keys":[' + written + b"]}" for written in _with_values(jwk)]
    path = VECTORS / "jwks.json"
    foreign = json.loads(path.read_text("utf-8")) if path.is_file() else {}
    known = [orjson.dumps(jwks) for jwks in (*made, *list(foreign.values())[:_MOST])]
    return known + odd


def _wire() -> list[bytes]:
    """The first byte is the size of the pieces."""
    made = []
    for number, target in enumerate(_TARGETS):
        for method in (b"GET", b"HEAD", b"POST"):
            head = method + b" " + target + b" HTTP/1.1\r\nHost: v\r\n"
            made.append(bytes([number + 1]) + head + _LINES[0] + b"\r\n\r\n")
    first = b"\x07GET /verify/nginx HTTP/1.1\r\nAuthorization: Bearer " + MARK
    for line in _WIRE_LINES:
        request = first + b"\r\n" + line + b"\r\n\r\n"
        made += [request, request + request[1:], request + b"abc" + request[1:]]
    made.append(first.replace(b"1.1", b"1.0") + b"\r\n\r\n")
    made.append(b"\x01PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n")
    return made


def _vectors() -> list[dict[str, object]]:
    path = VECTORS / "corpus.jsonl.gz"
    if not path.is_file():
        return []
    with gzip.open(path, "rt", encoding="utf-8") as lines:
        cases = [json.loads(line) for line in lines]
    step = max(1, len(cases) // _MOST)
    return cases[::step]


def _vector_tokens() -> list[bytes]:
    tokens = [str(case.get("token", "")) for case in _vectors()]
    return [t.encode("utf-8", "surrogatepass") for t in tokens if len(t) < 4_000]


def _vector_parts() -> list[bytes]:
    segments = [part for token in _vector_tokens() for part in token.split(b".")[:2]]
    return [_decoded(segment) for segment in segments[:_MOST]]


def _decoded(segment: bytes) -> bytes:
    try:
        return base64url.decode(segment)
    except base64url.Base64urlError:
        return segment
