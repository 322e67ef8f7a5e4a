"""The fuzz targets: bytes in, and one sentence each that must hold of the result.

Input is accepted, or refused with the one known exception. Accepted input is held
to more: that it has no second spelling, that it can be acted on, that it was ours.
"""

from __future__ import annotations

import contextlib
import json
from collections.abc import Callable
from functools import cache
from urllib.parse import quote

from shared.feed import EntryKind, FeedEntry, FeedError, encode_page, parse_page
from shared.jose import base64url
from shared.jose.jws import JwsError, parse_compact
from shared.jose.strict_json import MAX_NESTING, StrictJsonError, read_object
from shared.jose.verification_keys import JwksError
from tests.fuzz.fixtures import GOOD, MARK, NOW, POLICY, TRUST, sign, verifier
from tests.fuzz.wire import Wire
from tests.support.gate_counts import counts_of
from verifier.check.answers import IDENTITY_HEADERS, allow_answer
from verifier.check.denials import Denied
from verifier.check.forward_auth import (
    PlainCheckRequest,
    read_bearer,
    read_question,
    read_route,
)
from verifier.check.revocations import RevocationIndex
from verifier.check.rules.target_uri import canonical_segments
from verifier.check.trust import parse_jwks
from verifier.check.verify import verify

Target = Callable[[bytes], None]


def fuzz_verify(data: bytes) -> None:
    """A token as it is or, when a NUL stands in it, header and claims to be signed."""
    header, is_to_sign, claims = data.partition(b"\0")
    token = sign(header, claims) if is_to_sign else data
    try:
        verified = verify(token, TRUST, POLICY, NOW)
    except Denied:
        return
    assert is_to_sign or token == GOOD, "a token passed that we did not sign"
    shown = json.loads(claims) if is_to_sign else {}
    for name in (
        ("iss", "sub", "jti", "sid", "client_id", "gen", "exp") if shown else ()
    ):
        assert shown[name] == getattr(verified, name), name
    words = (verified.sub, verified.username, *verified.scopes, *verified.roles)
    assert not any(char < " " or char == "\x7f" for word in words for char in word)
    head = allow_answer(verified, b"allow").head
    # R10, R12: no value ends its line.
    assert head.count(b"\n") == head.count(b"\r\n") == len(IDENTITY_HEADERS) + 3
    assert head.isascii()


def fuzz_jws(data: bytes) -> None:
    """R17, R24: an accepted token has no other spelling."""
    try:
        jws = parse_compact(data)
        parts = (jws.unverified_payload, jws.signature)
    except JwsError:
        return
    header = data.partition(b".")[0]
    written = [header, *(base64url.encode(part).encode() for part in parts)]
    assert b".".join(written) == data
    assert jws.signing_input == b".".join(written[:2])


def fuzz_base64url(data: bytes) -> None:
    """One spelling for the same bytes."""
    assert base64url.decode(base64url.encode(data).encode()) == data
    try:
        decoded = base64url.decode(data)
    except base64url.Base64urlError:
        return
    assert base64url.encode(decoded).encode() == data


def fuzz_json(data: bytes) -> None:
    """R17: Python's own parser reads accepted JSON alike, and nothing is duplicated."""
    try:
        value = read_object(data)
    except StrictJsonError:
        return
    names = 0

    def count(pairs: list[tuple[str, object]]) -> dict[str, object]:
        nonlocal names
        names += len(pairs)
        return dict(pairs)

    assert json.loads(data.decode("utf-8"), object_pairs_hook=count) == value
    kept, depth, level = 0, 0, [value]
    while level:
        depth += 1
        kept += sum(len(item) for item in level if isinstance(item, dict))
        level = [
            child
            for item in level
            for child in (item.values() if isinstance(item, dict) else item)
            if isinstance(child, dict | list)
        ]
    assert kept == names, "a member is repeated"
    assert depth <= MAX_NESTING


_gate = cache(verifier)


def fuzz_forward_auth(data: bytes) -> None:
    """Target, then headers, one a line: R4, R9, R13."""
    target, *lines = data.replace(MARK, GOOD).split(b"\n")
    pairs = [line.partition(b":") for line in lines]
    headers = [(name.lower(), value.strip(b" ")) for name, _, value in pairs]
    request = PlainCheckRequest(b"GET", target, headers, peer_is_trusted=True)
    with contextlib.suppress(Denied):
        authorization, _ = read_question(request, read_route(target))
        token = read_bearer(authorization)
        given = [value for name, value in headers if name == b"authorization"]
        assert len(given) == 1
        assert b"," not in given[0]
        assert given[0].endswith(token)
        assert token.isascii()
        assert not set(token) & set(b" \t")
    answer = _gate().gate.answer(request)
    assert answer.status in (200, 401, 403, 503)
    assert answer.status != 200 or data.count(MARK), "200 without a good token"
    assert not counts_of(_gate().gate)["internal_error"]


def fuzz_feed(data: bytes) -> None:
    """A page that was read can be applied, and written again."""
    try:
        page = parse_page(data)
    except FeedError:
        return
    assert parse_page(encode_page(page)) == page
    numbers = {type(n) for e in page.entries for n in (e[0], *e[3:])}
    assert numbers <= {int}, "true is no number"
    known = RevocationIndex().apply([FeedEntry(1, EntryKind.SID, "known", 0, NOW)])
    assert 1 <= len(known.apply(page.entries)) <= 1 + len(page.entries)


def fuzz_jwks(data: bytes) -> None:
    """R20: every key that is read can be used."""
    try:
        keys = parse_jwks(data)
    except JwksError:
        return
    assert keys.keys
    for kid, key in keys.keys.items():
        assert keys.find(kid) is key
        assert 2_048 <= key.public_key.key_size <= 4_096
        numbers = key.public_key.public_numbers()
        assert numbers.e == 65_537
        assert numbers.n % 2


def fuzz_path(data: bytes) -> None:
    """R7: segments written plainly are read as the same segments."""
    try:
        segments = canonical_segments(data)
    except Denied:
        return
    for segment in segments:
        assert segment not in ("", ".", "..")
        assert not {"/", "\\", ";", "?", "#", "\0"}.intersection(segment)
    plain = "/" + "/".join(quote(segment, safe="") for segment in segments)
    assert canonical_segments(plain.encode()) == segments


_wire = cache(Wire)


def fuzz_wire(data: bytes) -> None:
    """R9, R25: 200 for a good token, else a refusal, else a 400, 404, 414, 431 or 505.

    The first byte chooses the pieces of the rest: the answers are the same.
    """
    size, sent = data[:1], data[1:].replace(MARK, GOOD)
    whole = _wire().statuses([sent])
    assert set(whole) <= {200, 401, 403, 503, 404, 400, 414, 431, 505}, whole
    assert whole.count(200) <= sent.count(GOOD), "200 without a good token"
    # Cut how they are, the bytes are answered alike, but for more than may wait.
    if size and len(sent) < 12_000:
        step = size[0] or 1
        pieces = [sent[at : at + step] for at in range(0, len(sent), step)]
        assert _wire().statuses(pieces) == whole


TARGETS: dict[str, Target] = {
    "verify": fuzz_verify,
    "jws": fuzz_jws,
    "base64url": fuzz_base64url,
    "json": fuzz_json,
    "forward_auth": fuzz_forward_auth,
    "feed": fuzz_feed,
    "jwks": fuzz_jwks,
    "path": fuzz_path,
    "wire": fuzz_wire,
}
