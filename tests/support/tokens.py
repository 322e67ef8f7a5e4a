"""Tokens made for tests: good ones by default, bad ones by naming the fault."""

from __future__ import annotations

from functools import cache
from typing import Any

import orjson
from cryptography.hazmat.primitives.asymmetric import padding, rsa
from cryptography.hazmat.primitives.hashes import SHA256

from shared.jose import base64url
from shared.jose.jwk import RsaPublicJwk

ISSUER = "https://issuer.test"
AUDIENCE = "api"


class TestKey:
    """An RSA signing key with the JWK of its public half."""

    __test__ = False

    def __init__(self, bits: int = 2048) -> None:
        self.private_key = rsa.generate_private_key(65537, bits)
        numbers = self.private_key.public_key().public_numbers()
        self.jwk = RsaPublicJwk.with_thumbprint(numbers.n, numbers.e)

    @property
    def kid(self) -> str:
        return self.jwk.kid

    def sign(self, signing_input: bytes) -> bytes:
        """Return the RS256 signature."""
        return self.private_key.sign(signing_input, padding.PKCS1v15(), SHA256())


def signing_key(name: str = "first") -> TestKey:
    """Return the key of that name; making one costs a tenth of a second."""
    return _make_key(name)


@cache
def _make_key(_name: str) -> TestKey:
    return TestKey()


def good_claims(now: int, **changes: Any) -> dict[str, Any]:
    """Return the claims of a token alive at `now`; a change to None removes a claim."""
    claims = {
        "iss": ISSUER,
        "aud": AUDIENCE,
        "exp": now + 600,
        "iat": now,
        "sub": "5f9c1e1e-0000-4000-8000-000000000001",
        "jti": "jti-1",
        "sid": "sid-1",
        "gen": 0,
        "client_id": "gatehouse",
        "scope": "orders:read orders:write",
        "roles": ["clerk"],
        "auth_time": now,
        "username": "alice",
    } | changes
    return {name: value for name, value in claims.items() if value is not None}


def make_token(
    claims: dict[str, Any] | bytes,
    *,
    key: TestKey | None = None,
    header: dict[str, Any] | bytes | None = None,
) -> bytes:
    """Return a signed compact JWS; `claims` and `header` may be raw bytes."""
    key = key or signing_key()
    if header is None:
        header = {"alg": "RS256", "typ": "at+jwt", "kid": key.kid}
    parts = [
        base64url.encode(part if isinstance(part, bytes) else orjson.dumps(part))
        for part in (header, claims)
    ]
    signing_input = ".".join(parts).encode()
    signature = base64url.encode(key.sign(signing_input))
    return signing_input + b"." + signature.encode()
