"""Which JWKs are RSA public keys for RS256 (R14, R20)."""

from __future__ import annotations

from typing import Any

import pytest

from shared.jose import base64url
from shared.jose.jwk import PRIVATE_MEMBERS, JwkError, RsaPublicJwk, thumbprint
from tests.support.tokens import signing_key

# RFC 7638, section 3.1
RFC_7638_N = (
    b"0vx7agoebGcQSuuPiLJXZptN9nndrQmbXEps2aiAFbWhM78LhWx4cbbfAAtVT86zwu1RK7aPFFxuhDR1L6"
    b"tSoc_BJECPebWKRXjBZCiFV4n3oknjhMstn64tZ_2W-5JsGY4Hc5n9yBXArwl93lqt7_RN5w6Cf0h4QyQ5"
    b"v-65YGjQR0_FDW2QvzqY368QQMicAtaSqzs8KJZgnYb9c7d0zgdAZHzu6qMQvRL5hajrn1n91CbOpbISD0"
    b"8qNLyrdkt-bFTWhAI4vMQFh6WeZu0fM4lFd2NcRwr3XPksINHaQ-G_xBniIqbw0Ls1jF44-csFCur-kEgU"
    b"8awapJzKnqDKgw"
)


def jwk(**changes: Any) -> dict[str, Any]:
    """Return a good JWK with changes; a change to `...` removes the member."""
    members: dict[str, Any] = {**signing_key().jwk.to_wire(), **changes}
    return {name: value for name, value in members.items() if value is not ...}


def test_the_thumbprint_is_that_of_rfc_7638() -> None:
    n = int.from_bytes(base64url.decode(RFC_7638_N), "big")
    assert thumbprint(n, 65537) == "NzbLsXh8uDCcd-6MNwXF4W_7noWXFZAfHkxZsRGC9Xs"


def test_writing_and_reading_round_trips() -> None:
    key = signing_key().jwk
    assert RsaPublicJwk.from_wire(key.to_wire()) == key
    assert key.kid == thumbprint(key.n, key.e)


def test_a_written_key_has_public_members_only() -> None:
    assert set(signing_key().jwk.to_wire()) == {"kty", "use", "alg", "kid", "n", "e"}


@pytest.mark.parametrize("member", ["use", "alg"])
def test_use_and_alg_may_be_absent(member: str) -> None:
    assert RsaPublicJwk.from_wire(jwk(**{member: ...})) == signing_key().jwk


@pytest.mark.parametrize("key_ops", [["verify"], ["sign", "verify"]])
def test_key_ops_may_hold_verify(key_ops: list[str]) -> None:
    assert RsaPublicJwk.from_wire(jwk(key_ops=key_ops)) == signing_key().jwk


def test_a_foreign_kid_is_any_text_up_to_256_bytes() -> None:
    assert RsaPublicJwk.from_wire(jwk(kid="../../etc/passwd")).kid == "../../etc/passwd"
    assert RsaPublicJwk.from_wire(jwk(kid="ü" * 128)).kid == "ü" * 128


def of_bits(bits: int) -> str:
    return base64url.encode(((1 << (bits - 1)) | 1).to_bytes((bits + 7) // 8, "big"))


@pytest.mark.parametrize("bits", [2048, 3072, 4096])
def test_sizes_from_2048_to_4096_bits_fit(bits: int) -> None:
    assert RsaPublicJwk.from_wire(jwk(n=of_bits(bits))).n.bit_length() == bits


BAD = [
    ("kty", {"kty": ...}),
    ("kty", {"kty": "EC"}),
    ("kty", {"kty": "oct"}),
    ("kty", {"kty": "rsa"}),
    ("kty", {"kty": ["RSA"]}),
    ("use", {"use": "enc"}),
    ("use", {"use": None}),
    ("use", {"use": ["sig"]}),
    ("alg", {"alg": "RS512"}),
    ("alg", {"alg": "PS256"}),
    ("alg", {"alg": "HS256"}),
    ("alg", {"alg": "rs256"}),
    ("alg", {"alg": None}),
    ("key_ops", {"key_ops": "verify"}),
    ("key_ops", {"key_ops": ["sign"]}),
    ("key_ops", {"key_ops": []}),
    ("key_ops", {"key_ops": ["verify", "verify"]}),
    ("key_ops", {"key_ops": ["verify", 1]}),
    ("key_ops", {"key_ops": None}),
    ("kid", {"kid": ...}),
    ("kid", {"kid": ""}),
    ("kid", {"kid": 7}),
    ("kid", {"kid": "k" * 257}),
    ("kid", {"kid": "ü" * 129}),
    ("n", {"n": ...}),
    ("n", {"n": 5}),
    ("n", {"n": ""}),
    ("n", {"n": signing_key().jwk.to_wire()["n"] + "=="}),
    ("n", {"n": "AA" + signing_key().jwk.to_wire()["n"]}),
    ("n", {"n": "Ä" * 342}),
    ("n", {"n": of_bits(1024)}),
    ("n", {"n": of_bits(2047)}),
    ("n", {"n": of_bits(4097)}),
    ("n", {"n": base64url.encode((1 << 2047).to_bytes(256, "big"))}),
    ("e", {"e": ...}),
    ("e", {"e": "Aw"}),
    ("e", {"e": "AQ"}),
    ("e", {"e": "AAEAAQ"}),
    ("e", {"e": "AQAB=="}),
    ("e", {"e": 65537}),
    ("e", {"e": base64url.encode(((1 << 64) + 1).to_bytes(9, "big"))}),
]


@pytest.mark.parametrize(
    ("member", "changes"), BAD, ids=[f"{m}-{n}" for n, (m, _) in enumerate(BAD)]
)
def test_a_member_that_does_not_fit_is_named(
    member: str, changes: dict[str, Any]
) -> None:
    """R20: each member."""
    with pytest.raises(JwkError, match=rf"^{member}: "):
        RsaPublicJwk.from_wire(jwk(**changes))


@pytest.mark.parametrize("member", sorted(PRIVATE_MEMBERS))
def test_a_private_or_symmetric_member_is_refused(member: str) -> None:
    """R14, R20: a private key that was published is lost."""
    with pytest.raises(JwkError, match="private"):
        RsaPublicJwk.from_wire(jwk(**{member: "AQAB"}))
