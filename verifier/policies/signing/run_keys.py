"""Keys that are made for one run: one for each algorithm, for one issuer.

They sign as an issuer would (RFC 7518, section 3), so that the code of the gate decides
about the token. The private halves never leave the process.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from typing import Any, Final

from cryptography.hazmat.primitives.asymmetric import ec, ed25519, mldsa, padding, rsa
from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature
from cryptography.hazmat.primitives.hashes import (
    SHA256,
    SHA384,
    SHA512,
    HashAlgorithm,
)

from shared.claims import MIN_RSA_BITS, RSA_EXPONENT
from shared.jose.algorithms import ALGORITHMS, CURVES, canonical_name
from shared.jose.verification_keys import VerificationKey

_Sign = Callable[[bytes], bytes]

_HASHES: Final[dict[str, HashAlgorithm]] = {
    "256": SHA256(),
    "384": SHA384(),
    "512": SHA512(),
}
_ML_DSA: Final[dict[str, Any]] = {
    "ML-DSA-44": mldsa.MLDSA44PrivateKey,
    "ML-DSA-65": mldsa.MLDSA65PrivateKey,
    "ML-DSA-87": mldsa.MLDSA87PrivateKey,
}


class RunKey:
    """A key that is made for the run.

    Args:
        alg: the algorithm, as a token's header names it.
        kid: its id in that header.

    Attributes:
        alg, kid: as given.
        public: the public half.
    """

    def __init__(self, alg: str, kid: str) -> None:
        self.alg = alg
        self.kid = kid
        name = canonical_name(alg)
        private = _make_private(name)
        self._sign = _signing(name, private)
        self.public = VerificationKey(kid, ALGORITHMS[name], private.public_key())

    def sign(self, signing_input: bytes) -> bytes:
        """Return the signature as JWS has it."""
        return self._sign(signing_input)


def _make_private(name: str) -> Any:
    algorithm = ALGORITHMS[name]
    match algorithm.kty:
        case "RSA":
            return _make_rsa()
        case "EC":
            return ec.generate_private_key(CURVES[algorithm.curve])
        case "OKP":
            return ed25519.Ed25519PrivateKey.generate()
        case _:
            return _ML_DSA[name].generate()


@cache
def _make_rsa() -> rsa.RSAPrivateKey:
    # One for all algorithms of RSA, because it takes a tenth of a second.
    return rsa.generate_private_key(RSA_EXPONENT, MIN_RSA_BITS)


def _signing(name: str, private: Any) -> _Sign:
    hash_algorithm = _HASHES.get(name[2:])
    if hash_algorithm is None:
        return lambda signing_input: bytes(private.sign(signing_input))
    if name.startswith("ES"):
        return _ecdsa(private, hash_algorithm)
    pss = padding.PSS(padding.MGF1(hash_algorithm), hash_algorithm.digest_size)
    used = pss if name.startswith("PS") else padding.PKCS1v15()
    return lambda signing_input: bytes(
        private.sign(signing_input, used, hash_algorithm)
    )


def _ecdsa(private: ec.EllipticCurvePrivateKey, hash_algorithm: HashAlgorithm) -> _Sign:
    """RFC 7518, section 3.4: r and s, each of the full length."""
    length = (private.curve.key_size + 7) // 8
    scheme = ec.ECDSA(hash_algorithm)

    def sign(signing_input: bytes) -> bytes:
        numbers = decode_dss_signature(private.sign(signing_input, scheme))
        return b"".join(number.to_bytes(length, "big") for number in numbers)

    return sign
