"""The JWK form of our RSA public keys (RFC 7517, RFC 7518 section 6.3).

The issuer writes it, the verifier reads it. Only public members exist here: a type
that cannot hold a private member cannot publish one.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from shared.claims import (
    ALGORITHM,
    MAX_KID_BYTES,
    MAX_RSA_BITS,
    MIN_RSA_BITS,
    RSA_EXPONENT,
)
from shared.jose import base64url

#: Members of private and symmetric keys (RFC 7518, sections 6.3.2 and 6.4.1).
PRIVATE_MEMBERS: Final = frozenset({"d", "p", "q", "dp", "dq", "qi", "oth", "k"})


class JwkError(ValueError):
    """A JWK is not an RSA public key for our use; the message names the member."""


@dataclass(frozen=True, slots=True)
class RsaPublicJwk:
    """An RSA public key of a JWKS.

    Attributes:
        kid: key id; ours are RFC 7638 thumbprints, foreign ones any string.
        n: modulus.
        e: public exponent, always 65537.
    """

    kid: str
    n: int
    e: int = RSA_EXPONENT

    @classmethod
    def with_thumbprint(cls, n: int, e: int = RSA_EXPONENT) -> RsaPublicJwk:
        """Return the key with its RFC 7638 thumbprint as `kid`."""
        return cls(kid=thumbprint(n, e), n=n, e=e)

    def to_wire(self) -> dict[str, str]:
        """Return the JSON object: `kty use alg kid n e`, all strings."""
        return {
            "kty": "RSA",
            "use": "sig",
            "alg": ALGORITHM,
            "kid": self.kid,
            "n": _encode_int(self.n),
            "e": _encode_int(self.e),
        }

    @classmethod
    def from_wire(cls, jwk: Mapping[str, Any]) -> RsaPublicJwk:
        """Read a JWK of type RSA that may check RS256 signatures (requirement R20).

        Raises:
            JwkError: naming the member that is missing, malformed or does not fit.
        """
        if jwk.get("kty") != "RSA":
            raise JwkError("kty: must be RSA")
        if not PRIVATE_MEMBERS.isdisjoint(jwk):
            raise JwkError("a private member is present")
        if jwk.get("use", "sig") != "sig":
            raise JwkError("use: must be sig")
        if jwk.get("alg", ALGORITHM) != ALGORITHM:
            raise JwkError(f"alg: must be {ALGORITHM}")
        check_key_ops(jwk)
        kid = jwk.get("kid")
        if not isinstance(kid, str) or not 0 < len(kid.encode()) <= MAX_KID_BYTES:
            raise JwkError(f"kid: must be a string of 1..{MAX_KID_BYTES} bytes")
        n, e = read_integer(jwk, "n"), read_integer(jwk, "e")
        if not MIN_RSA_BITS <= n.bit_length() <= MAX_RSA_BITS or n % 2 == 0:
            raise JwkError(f"n: must be odd, of {MIN_RSA_BITS}..{MAX_RSA_BITS} bits")
        if e != RSA_EXPONENT:
            raise JwkError(f"e: must be {RSA_EXPONENT}")
        return cls(kid=kid, n=n, e=e)


def thumbprint(n: int, e: int) -> str:
    """Return the RFC 7638 SHA-256 thumbprint of an RSA public key, base64url."""
    canonical = f'{{"e":"{_encode_int(e)}","kty":"RSA","n":"{_encode_int(n)}"}}'
    return base64url.encode(hashlib.sha256(canonical.encode("ascii")).digest())


def check_key_ops(jwk: Mapping[str, Any]) -> None:
    """Check that a key is meant for verifying (RFC 7517, section 4.3).

    Raises:
        JwkError: when `key_ops` is there, and lacks `verify` or has one twice.
    """
    if "key_ops" not in jwk:
        return
    key_ops = jwk["key_ops"]
    if not isinstance(key_ops, list) or not all(isinstance(op, str) for op in key_ops):
        raise JwkError("key_ops: must be a list of strings")
    if "verify" not in key_ops or len(set(key_ops)) != len(key_ops):
        raise JwkError("key_ops: must hold verify, each operation once")


def _encode_int(value: int) -> str:
    return base64url.encode(value.to_bytes((value.bit_length() + 7) // 8, "big"))


def read_integer(jwk: Mapping[str, Any], member: str) -> int:
    """Return a positive integer of a JWK (RFC 7518, section 2, Base64urlUInt).

    Raises:
        JwkError: when it is not big-endian bytes without a leading zero byte.
    """
    data = read_bytes(jwk, member)
    if not data or data[0] == 0:
        raise JwkError(f"{member}: must be a positive integer without leading zeros")
    return int.from_bytes(data, "big")


def read_bytes(jwk: Mapping[str, Any], member: str) -> bytes:
    """Return the bytes that a member of a JWK holds as base64url text.

    Raises:
        JwkError: naming the member, when it is no such text.
    """
    text = jwk.get(member)
    if not isinstance(text, str) or not text.isascii():
        raise JwkError(f"{member}: must be base64url text")
    try:
        return base64url.decode(text.encode("ascii"))
    except base64url.Base64urlError:
        raise JwkError(f"{member}: must be canonical base64url") from None
