"""Tokens near the form of our issuer's, for gateways that check tokens themselves."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from typing import Any

import orjson

from tests.support.tokens import ISSUER, TestKey, good_claims, make_token, signing_key

Make = Callable[[int], bytes]
#: The claims in the order in which our issuer writes them.
_ORDER = [
    "iss",
    "aud",
    "exp",
    "iat",
    "sub",
    "jti",
    "client_id",
    "scope",
    "sid",
    "gen",
    "roles",
    "auth_time",
    "username",
    "amr",
    "acr",
    "status",
]


def in_issuers_order(claims: Mapping[str, Any]) -> dict[str, Any]:
    """Return the claims as our issuer orders them, others last."""
    places = {name: place for place, name in enumerate(_ORDER)}
    return dict(sorted(claims.items(), key=lambda item: places.get(item[0], 99)))


def our_token(key: TestKey | None = None, **changes: Any) -> str:
    """Return a token as our issuer makes it; a change to None removes a claim."""
    claims = in_issuers_order(good_claims(int(time.time()), **changes))
    return make_token(claims, key=key).decode()


def _with(**changes: Any) -> Make:
    """Return the maker of a token with other claims; None removes one."""
    return lambda now: make_token(in_issuers_order(good_claims(now, **changes)))


def _header(**changes: Any) -> Make:
    """Return the maker of a token with other header members; None removes one."""

    def make(now: int) -> bytes:
        header = {"alg": "RS256", "typ": "at+jwt", "kid": signing_key().kid} | changes
        header = {name: value for name, value in header.items() if value is not None}
        return make_token(in_issuers_order(good_claims(now)), header=header)

    return make


def _raw_header(text: str) -> Make:
    return lambda now: make_token(
        in_issuers_order(good_claims(now)),
        header=text.replace("KID", signing_key().kid).encode(),
    )


def _replaced(old: str, new: str) -> Make:
    """Return the maker of a token with another text in its payload."""

    def make(now: int) -> bytes:
        payload = orjson.dumps(in_issuers_order(good_claims(now))).decode()
        written = old.replace("EXP", str(now + 600))
        assert written in payload, written
        wanted = new.replace("EXP", str(now + 600)).replace("NOW", str(now))
        return make_token(payload.replace(written, wanted).encode())

    return make


def _payload(change: Callable[[bytes], bytes]) -> Make:
    """Return the maker of a token whose payload's bytes are changed."""
    return lambda now: make_token(
        change(orjson.dumps(in_issuers_order(good_claims(now))))
    )


def _text(change: Callable[[str], str]) -> Make:
    """Return the maker of a good token whose text is changed after it was signed."""
    return lambda now: change(_with()(now).decode()).encode()


def _other_signature(now: int) -> bytes:
    token = _with()(now)
    other = make_token(
        in_issuers_order(good_claims(now)),
        key=signing_key("stranger"),
        header={"alg": "RS256", "typ": "at+jwt", "kid": signing_key().kid},
    )
    return token.rpartition(b".")[0] + b"." + other.rpartition(b".")[2]


def _loose_bits(token: str) -> str:
    """Return the same signature's bytes in another spelling."""
    alphabet = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"
    return token[:-1] + alphabet[alphabet.index(token[-1]) ^ 1]


def _reordered(now: int) -> bytes:
    claims = in_issuers_order(good_claims(now))
    return make_token(dict(reversed(claims.items())))


_GOOD_HEADER = '{"alg":"RS256","typ":"at+jwt","kid":"KID"'
CASES: dict[str, Make] = {
    "good": _with(),
    "good with all claims": _with(
        amr=["pwd", "otp"],
        acr="mfa",
        status={"status_list": {"idx": 7, "uri": "https://issuer.test/lists/0"}},
    ),
    # R14, R15: keys and algorithms
    "unknown kid": _header(kid="other"),
    "kid is a path": _header(kid="../keys/x.pem"),
    "kid is a number": _header(kid=1),
    "no kid": _header(kid=None),
    "signed by a stranger": _other_signature,
    "alg none": _header(alg="none"),
    "alg none, unsigned": lambda now: _header(alg="none")(now).rpartition(b".")[0]
    + b".",
    "alg HS256": _header(alg="HS256"),
    "alg RS512": _header(alg="RS512"),
    "alg in lower case": _header(alg="rs256"),
    "no alg": _header(alg=None),
    "two algs": _raw_header('{"alg":"none",' + _GOOD_HEADER[1:] + "}"),
    "two kids": _raw_header(_GOOD_HEADER + ',"kid":"other"}'),
    # R16: header members
    "crit": _header(crit=["exp"]),
    "b64": _header(b64=False, crit=["b64"]),
    "jwk": _header(jwk={}),
    "jku": _header(jku="https://x.test"),
    "zip": _header(zip="DEF"),
    "cty": _header(cty="JWT"),
    "header with spaces": _raw_header(_GOOD_HEADER.replace(",", ", ") + "}"),
    "header in another order": _raw_header(
        '{"typ":"at+jwt","alg":"RS256","kid":"KID"}'
    ),
    # R17: the form
    "payload with spaces": _replaced(',"aud"', ', "aud"'),
    "claims in another order": _reordered,
    "a further claim": _with(more="x"),
    "bytes after the payload": _payload(lambda p: p + b"xx"),
    "NUL after the payload": _payload(lambda p: p + b"\0"),
    "NUL and more after the payload": _payload(lambda p: p + b'\0,"exp":1}'),
    "line end after the payload": _payload(lambda p: p + b"\n\n"),
    "payload with a BOM": _payload(lambda p: b"\xef\xbb\xbf" + p),
    "payload in UTF-16": _payload(lambda p: p.decode().encode("utf-16")),
    "payload not closed": _payload(lambda p: p[:-1]),
    "claim twice": _replaced('"sid":"sid-1"', '"sid":"other","sid":"sid-1"'),
    "exp twice": _replaced('"exp":EXP', '"exp":1,"exp":EXP'),
    "invalid UTF-8": _payload(lambda p: p.replace(b"alice", b"ali\xff")),
    "NaN": _replaced('"gen":0', '"gen":NaN'),
    "padding": _text(lambda t: t + "=="),
    "another spelling of the signature": _text(_loose_bits),
    "four segments": _text(lambda t: t + ".x"),
    "an empty fourth segment": _text(lambda t: t + "."),
    "another alphabet": _text(lambda t: t.replace("-", "+").replace("_", "/") + "+"),
    "longer than 8,000 bytes": _with(scope="a" * 6_200),
    "nearly 8,000 bytes": _with(scope="a" * 5_000),
    # R18: claims and their types
    "exp is text": _replaced('"exp":EXP', '"exp":"EXP"'),
    "exp is no whole number": _replaced('"exp":EXP', '"exp":EXP.5'),
    "exp is in milliseconds": _replaced('"exp":EXP', '"exp":EXP000'),
    "exp is true": _with(exp=True),
    "exp is a list": _replaced('"exp":EXP', '"exp":[EXP]'),
    "exp is an exponent": _replaced('"exp":EXP', '"exp":2e9'),
    "exp begins with 0": _replaced('"exp":EXP', '"exp":0EXP'),
    "no exp": _with(exp=None),
    "expired": lambda now: _with(exp=now - 8, iat=now - 600)(now),
    "expired within the leeway": lambda now: _with(exp=now - 2, iat=now - 600)(now),
    "lives too long": lambda now: _with(exp=now + 3_700)(now),
    "iat in the future": lambda now: _with(iat=now + 60)(now),
    "iat in the future within the leeway": lambda now: _with(iat=now + 2)(now),
    "no iat": _with(iat=None),
    "nbf in the future": lambda now: _with(nbf=now + 60)(now),
    "nbf in the past": lambda now: _with(nbf=now - 60)(now),
    "another aud": _with(aud="other"),
    "aud begins like ours": _with(aud="api2"),
    "aud is ours and a NUL": _with(aud="api\0"),
    "aud is a list": _with(aud=["api"]),
    "aud is a list with another one": _with(aud=["other", "api"]),
    "aud is an empty list": _with(aud=[], roles=["api"]),
    "aud is a nested list": _with(aud=[["api"]]),
    "no aud": _with(aud=None),
    "aud in another claim": _with(aud="other", username="api"),
    "another iss": _with(iss="https://other.test"),
    "iss with a slash": _with(iss=f"{ISSUER}/"),
    "iss with another dot": _with(iss=ISSUER.replace(".", "x")),
    "iss is a list": _with(iss=[ISSUER]),
    "no iss": _with(iss=None),
    "no sub": _with(sub=None),
    "empty sub": _with(sub=""),
    "sub is a number": _with(sub=7),
    "sub is too long": _with(sub="a" * 257),
    "no jti": _with(jti=None),
    "no sid": _with(sid=None),
    "no client_id": _with(client_id=None),
    "no gen": _with(gen=None),
    "gen is text": _with(gen="1"),
    "gen is below 0": _with(gen=-1),
    "gen is true": _with(gen=True),
    "gen is no whole number": _with(gen=1.5),
    "no scope": _with(scope=None),
    "scope is a list": _with(scope=["a"]),
    "two spaces in the scope": _with(scope="a  b"),
    "roles are text": _with(roles="clerk"),
    "a role is a number": _with(roles=[1]),
    "no auth_time": _with(auth_time=None),
    "typ application/at+jwt": _header(typ="application/at+jwt"),
    "typ JWT": _header(typ="JWT"),
    "no typ": _header(typ=None),
    # R12: values
    "escaped letter": _replaced('"alice"', '"\\u0061lice"'),
    "letter outside ASCII": _with(username="él"),
    "space in the subject": _with(sub="a b"),
    "percent sign in the subject": _with(sub="a%b"),
    "comma in the subject": _with(sub="a,b"),
    "quotation mark in the subject": _with(sub='a"b'),
    "NUL in the subject": _with(sub="a\0b"),
    "line end in the subject": _with(sub="a\r\nX-Auth-User: b"),
    "bracket in a role": _with(roles=["a]b"]),
    "space in a role": _with(roles=["a b"]),
    "longest role": _with(roles=["a", "r" * 256]),
    "role that is too long": _with(roles=["a", "r" * 257]),
}
#: Header lines with a good token in the place of TOKEN, and whether the verifier
#: accepts them.
AUTHORIZATIONS: dict[str, tuple[bytes, bool]] = {
    "lower case": (b"authorization: bearer TOKEN", True),
    "two spaces": (b"Authorization: Bearer  TOKEN", True),
    "tab": (b"Authorization: Bearer\tTOKEN", False),
    "a word behind it": (b"Authorization: Bearer TOKEN x", False),
    "comma": (b"Authorization: Bearer TOKEN,Bearer x", False),
    "two headers": (b"Authorization: Bearer TOKEN\r\nAuthorization: Bearer x", False),
    "two headers, bad first": (
        b"Authorization: Bearer x\r\nAuthorization: Bearer TOKEN",
        False,
    ),
    "another scheme": (b"Authorization: Basic TOKEN", False),
    "no scheme": (b"Authorization: TOKEN", False),
    "quoted": (b'Authorization: Bearer "TOKEN"', False),
    "empty": (b"Authorization: Bearer", False),
    "none": (b"X: y", False),
}
