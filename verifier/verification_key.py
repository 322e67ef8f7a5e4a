"""A public key that can check RS256 signatures and nothing else."""

from __future__ import annotations

from dataclasses import dataclass

from cryptography.hazmat.primitives.asymmetric.rsa import (
    RSAPublicKey,
    RSAPublicNumbers,
)

from shared.jwk import RsaPublicJwk


@dataclass(frozen=True, slots=True)
class VerificationKey:
    """A public key bound to RS256 and to nothing else (R14).

    Attributes:
        kid: the name tokens call it by.
        public_key: the RSA key, 2048 to 4096 bits.
    """

    kid: str
    public_key: RSAPublicKey

    @classmethod
    def from_jwk(cls, jwk: RsaPublicJwk) -> VerificationKey:
        """Return the key for a JWK that passed `RsaPublicJwk.from_wire`."""
        return cls(jwk.kid, RSAPublicNumbers(jwk.e, jwk.n).public_key())
