"""A signing key for each algorithm, from fixed numbers: the same in every run."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import cache
from typing import Any

import orjson
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, mldsa, padding
from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature
from cryptography.hazmat.primitives.hashes import (
    SHA256,
    SHA384,
    SHA512,
    HashAlgorithm,
)

from shared.jose import base64url
from shared.jose.algorithms import ALGORITHMS
from shared.jose.verification_keys import VerificationKey, read_key
from tests.support.fixed_key import fixed_key

Signing = Callable[[bytes], bytes]

_HASHES: Mapping[str, HashAlgorithm] = {
    "256": SHA256(),
    "384": SHA384(),
    "512": SHA512(),
}
_CURVES: Mapping[str, tuple[str, ec.EllipticCurve]] = {
    "256": ("P-256", ec.SECP256R1()),
    "384": ("P-384", ec.SECP384R1()),
    "512": ("P-521", ec.SECP521R1()),
}
_ML_DSA: Mapping[str, Any] = {
    "ML-DSA-44": mldsa.MLDSA44PrivateKey,
    "ML-DSA-65": mldsa.MLDSA65PrivateKey,
    "ML-DSA-87": mldsa.MLDSA87PrivateKey,
}
#: Of the two keys of each algorithm.
_SEEDS = {"ours": 11, "theirs": 12}


class JoseKey:
    """A private key for one algorithm.

    Attributes:
        alg: its name, which is also in the JWK.
        jwk: the public half.
    """

    def __init__(self, alg: str, members: dict[str, Any], sign: Signing) -> None:
        self.alg = alg
        self.jwk: dict[str, Any] = {"alg": alg, "kid": f"key-{alg}", **members}
        self._sign = sign

    def sign(self, signing_input: bytes) -> bytes:
        """Return the signature as JWS has it."""
        return self._sign(signing_input)

    def public(self) -> VerificationKey:
        """Return the public half, read from the JWK."""
        return read_key(self.jwk, frozenset({self.alg}))

    def token(self, payload: bytes = b'{"sub":"alice"}', **header: Any) -> bytes:
        """Return a compact JWS; a header member of `...` is left out."""
        members = {"alg": self.alg, "kid": self.jwk["kid"], **header}
        kept = {name: value for name, value in members.items() if value is not ...}
        return self.compact(orjson.dumps(kept), payload)

    def compact(self, header: bytes, payload: bytes) -> bytes:
        """Return a compact JWS of these bytes."""
        signing_input = text(header) + b"." + text(payload)
        return signing_input + b"." + text(self.sign(signing_input))


def text(data: bytes) -> bytes:
    """Return base64url text as bytes."""
    return base64url.encode(data).encode()


@cache
def jose_key(alg: str, name: str = "ours") -> JoseKey:
    """Return the key `ours` or `theirs` of an algorithm."""
    seed = _SEEDS[name]
    match ALGORITHMS[alg].kty:
        case "RSA":
            return _rsa(alg, name)
        case "EC":
            return _ec(alg, seed)
        case "OKP":
            private_key = ed25519.Ed25519PrivateKey.from_private_bytes(
                bytes([seed]) * 32
            )
            x = base64url.encode(private_key.public_key().public_bytes_raw())
            members = {"kty": "OKP", "crv": "Ed25519", "x": x}
            return JoseKey(alg, members, private_key.sign)
        case _:
            lattice_key = _ML_DSA[alg].from_seed_bytes(bytes([seed]) * 32)
            pub = base64url.encode(lattice_key.public_key().public_bytes_raw())
            return JoseKey(alg, {"kty": "AKP", "pub": pub}, lattice_key.sign)


def _rsa(alg: str, name: str) -> JoseKey:
    key = fixed_key(name)
    digest = _HASHES[alg[2:]]
    scheme: padding.AsymmetricPadding = padding.PKCS1v15()
    if alg.startswith("PS"):
        scheme = padding.PSS(padding.MGF1(digest), digest.digest_size)
    wire = key.jwk.to_wire()
    members = {"kty": "RSA", "n": wire["n"], "e": wire["e"]}
    return JoseKey(
        alg, members, lambda data: key.private_key.sign(data, scheme, digest)
    )


def _ec(alg: str, seed: int) -> JoseKey:
    name, curve = _CURVES[alg[2:]]
    length = (curve.key_size + 7) // 8
    private_key = ec.derive_private_key(seed**50, curve)
    point = private_key.public_key().public_numbers()
    scheme = ec.ECDSA(_HASHES[alg[2:]], deterministic_signing=True)

    def sign(data: bytes) -> bytes:
        r, s = decode_dss_signature(private_key.sign(data, scheme))
        return r.to_bytes(length, "big") + s.to_bytes(length, "big")

    x, y = (base64url.encode(n.to_bytes(length, "big")) for n in (point.x, point.y))
    return JoseKey(alg, {"kty": "EC", "crv": name, "x": x, "y": y}, sign)
