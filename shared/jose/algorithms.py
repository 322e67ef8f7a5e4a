"""The signature algorithms of tokens: the name, the key that fits, and how to verify.

There is no `none` and no HMAC: neither can be written down here (requirements R14 and
R15). Each algorithm fixes hash, padding and curve, so that the token chooses nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any, Final

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ec import (
    ECDSA,
    SECP256R1,
    SECP384R1,
    SECP521R1,
    EllipticCurve,
    EllipticCurvePublicKey,
)
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from cryptography.hazmat.primitives.asymmetric.mldsa import (
    MLDSA44PublicKey,
    MLDSA65PublicKey,
    MLDSA87PublicKey,
)
from cryptography.hazmat.primitives.asymmetric.padding import MGF1, PSS, PKCS1v15
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPublicKey
from cryptography.hazmat.primitives.asymmetric.utils import encode_dss_signature
from cryptography.hazmat.primitives.hashes import (
    SHA256,
    SHA384,
    SHA512,
    HashAlgorithm,
)

#: A key that can verify. There is no symmetric one.
PublicKey = (
    RSAPublicKey
    | EllipticCurvePublicKey
    | Ed25519PublicKey
    | MLDSA44PublicKey
    | MLDSA65PublicKey
    | MLDSA87PublicKey
)
#: Raises `InvalidSignature`. The arguments are key, signature and signing input.
_Check = Callable[[Any, bytes, bytes], None]

#: RFC 7518, section 6.2.1.1.
CURVES: Final[Mapping[str, EllipticCurve]] = MappingProxyType(
    {"P-256": SECP256R1(), "P-384": SECP384R1(), "P-521": SECP521R1()}
)
#: RFC 9864, section 2.2: `EdDSA` does not name the curve, so it is deprecated.
_OLD_NAMES: Final[Mapping[str, str]] = MappingProxyType({"EdDSA": "Ed25519"})


@dataclass(frozen=True, slots=True)
class Algorithm:
    """A signature algorithm of JWS.

    Attributes:
        name: `alg` of a header.
        kty: the type of its keys in a JWK: RSA, EC, OKP or AKP.
        curve: `crv` of its keys; empty for RSA and AKP.
        key_type: the class of its public keys.
    """

    name: str
    kty: str
    curve: str
    key_type: type[Any] = field(repr=False)
    _check: _Check = field(repr=False, compare=False)

    def check_key(self, public_key: PublicKey) -> None:
        """Check that a key is of this algorithm, once for each key.

        Raises:
            TypeError: for a key of another type or curve: a fault of the program.
        """
        if not isinstance(public_key, self.key_type):
            raise TypeError(f"{self.name} has no such keys")
        if isinstance(public_key, EllipticCurvePublicKey):
            curve = CURVES.get(self.curve)
            if curve is None or public_key.curve.name != curve.name:
                raise TypeError(f"{self.name} has no keys of this curve")

    def verify(
        self, public_key: PublicKey, signature: bytes, signing_input: bytes
    ) -> None:
        """Verify a signature.

        Args:
            public_key: passed `check_key`.
            signature: as in the token, decoded.
            signing_input: the bytes that it covers.

        Raises:
            InvalidSignature: when it is not this key's signature of these bytes.
        """
        self._check(public_key, signature, signing_input)


def canonical_name(name: str) -> str:
    """Return the present name of an algorithm: `Ed25519` for `EdDSA` (RFC 9864)."""
    return _OLD_NAMES.get(name, name)


def _rsa_pkcs1(name: str, hash_algorithm: HashAlgorithm) -> Algorithm:
    """RFC 7518, section 3.3."""
    padding = PKCS1v15()

    def check(key: RSAPublicKey, signature: bytes, signing_input: bytes) -> None:
        key.verify(signature, signing_input, padding, hash_algorithm)

    return Algorithm(name, "RSA", "", RSAPublicKey, check)


def _rsa_pss(name: str, hash_algorithm: HashAlgorithm) -> Algorithm:
    """RFC 7518, section 3.5: the salt is as long as the digest, MGF1 has its hash."""
    padding = PSS(MGF1(hash_algorithm), hash_algorithm.digest_size)

    def check(key: RSAPublicKey, signature: bytes, signing_input: bytes) -> None:
        # RFC 8017, section 8.1.2, step 1. OpenSSL takes a signature without its
        # leading zero bytes, which is a second spelling of it (R24).
        if len(signature) != (key.key_size + 7) // 8:
            raise InvalidSignature
        key.verify(signature, signing_input, padding, hash_algorithm)

    return Algorithm(name, "RSA", "", RSAPublicKey, check)


def _ecdsa(name: str, curve_name: str, hash_algorithm: HashAlgorithm) -> Algorithm:
    """RFC 7518, section 3.4: r and s, each of the full length, one after the other.

    A signature has one spelling for that reason. DER would have many. From one
    signature another can be computed (s and its negative); nothing here takes a
    signature for the name of a token (requirement R24).
    """
    curve = CURVES[curve_name]
    order = curve.group_order
    length = (curve.key_size + 7) // 8
    scheme = ECDSA(hash_algorithm)

    def check(
        key: EllipticCurvePublicKey, signature: bytes, signing_input: bytes
    ) -> None:
        if len(signature) != 2 * length:
            raise InvalidSignature
        r = int.from_bytes(signature[:length], "big")
        s = int.from_bytes(signature[length:], "big")
        # Zero verified everywhere in Java (CVE-2022-21449). OpenSSL checks it, too.
        if not (0 < r < order and 0 < s < order):
            raise InvalidSignature
        key.verify(encode_dss_signature(r, s), signing_input, scheme)

    return Algorithm(name, "EC", curve_name, EllipticCurvePublicKey, check)


def _check_whole(key: Any, signature: bytes, signing_input: bytes) -> None:
    """Verify with a key whose type fixes everything else."""
    key.verify(signature, signing_input)


def _by_name(*algorithms: Algorithm) -> Mapping[str, Algorithm]:
    return MappingProxyType({algorithm.name: algorithm for algorithm in algorithms})


#: Every algorithm by its present name. What an issuer may use is its own list.
ALGORITHMS: Final[Mapping[str, Algorithm]] = _by_name(
    _rsa_pkcs1("RS256", SHA256()),
    _rsa_pkcs1("RS384", SHA384()),
    _rsa_pkcs1("RS512", SHA512()),
    _rsa_pss("PS256", SHA256()),
    _rsa_pss("PS384", SHA384()),
    _rsa_pss("PS512", SHA512()),
    _ecdsa("ES256", "P-256", SHA256()),
    _ecdsa("ES384", "P-384", SHA384()),
    _ecdsa("ES512", "P-521", SHA512()),
    # RFC 8037, section 3.1; RFC 9864, section 2.2.
    Algorithm("Ed25519", "OKP", "Ed25519", Ed25519PublicKey, _check_whole),
    # RFC 9964, section 3: the context is empty, and there is no hash before it.
    Algorithm("ML-DSA-44", "AKP", "", MLDSA44PublicKey, _check_whole),
    Algorithm("ML-DSA-65", "AKP", "", MLDSA65PublicKey, _check_whole),
    Algorithm("ML-DSA-87", "AKP", "", MLDSA87PublicKey, _check_whole),
)
#: What a list of algorithms can name: `EdDSA` is there only for those who list it.
ALGORITHM_NAMES: Final = frozenset(ALGORITHMS) | frozenset(_OLD_NAMES)
