"""A JWKS of any issuer becomes keys, each bound to one algorithm (RFC 7517).

The key decides which algorithm verifies, never the token (requirements R14 and R67).
Keys that cannot be used are left out, and the reasons are kept for the operator. A set
whose author has lost control of it is refused as a whole (requirement R20).
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any, Final, NamedTuple

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.ec import EllipticCurvePublicNumbers
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPublicNumbers
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from shared.claims import MAX_KID_BYTES, is_plain_text
from shared.jose.algorithms import (
    ALGORITHMS,
    CURVES,
    Algorithm,
    PublicKey,
    canonical_name,
)
from shared.jose.ed25519_points import check_ed25519_point
from shared.jose.jwk import (
    PRIVATE_MEMBERS,
    JwkError,
    check_key_ops,
    read_bytes,
    read_integer,
)
from shared.jose.rsa_strength import check_rsa_key
from shared.jose.strict_json import StrictJsonError, read_object

#: Keys in a JWKS at most. A set of signing keys has few, and each costs memory and
#: time: a millisecond for RSA.
MAX_KEYS: Final = 100
#: `priv` is the private member of AKP keys (RFC 9964, section 4).
SECRET_MEMBERS: Final = PRIVATE_MEMBERS | {"priv"}
#: Reasons in the message about a set without a usable key.
_SHOWN_REASONS: Final = 10


class JwksError(ValueError):
    """A JWKS cannot be used; the message has the reason."""


@dataclass(frozen=True, slots=True)
class VerificationKey:
    """A public key that is used for one algorithm only (R14).

    Attributes:
        kid: its id in token headers.
        algorithm: the only algorithm that it verifies.
        public_key: of the type and curve of that algorithm.
        fingerprint: hexadecimal digest over kid, algorithm and key.
    """

    kid: str
    algorithm: Algorithm
    public_key: PublicKey
    fingerprint: str = field(init=False)

    def __post_init__(self) -> None:
        """Check that the key fits, and compute the digest.

        Raises:
            TypeError: when the key is not of the algorithm.
        """
        self.algorithm.check_key(self.public_key)
        encoded = self.public_key.public_bytes(
            Encoding.DER, PublicFormat.SubjectPublicKeyInfo
        )
        digest = hashlib.sha256(f"{self.kid!r} {self.algorithm.name} ".encode())
        digest.update(encoded)
        object.__setattr__(self, "fingerprint", digest.hexdigest())


class KeysFound(NamedTuple):
    """What a JWKS has for us.

    Attributes:
        keys: the usable keys, at least one, with distinct kids.
        unusable: kid or position of each signing key that cannot be used, and why.
            Keys for encryption are not among them.
    """

    keys: tuple[VerificationKey, ...]
    unusable: tuple[tuple[str, str], ...]


def read_keys(document: bytes, allowed: frozenset[str]) -> KeysFound:
    """Read a JWKS (RFC 7517, section 5).

    Args:
        document: the bytes that the issuer serves.
        allowed: names of the algorithms of this issuer, all of them known.

    Raises:
        JwksError: when the set is malformed, dangerous, or has no key that can be used.
    """
    found = KeysFound((), ())
    for step in read_key_by_key(document, allowed):
        found = step or found
    return found


def read_key_by_key(
    document: bytes, allowed: frozenset[str]
) -> Iterator[KeysFound | None]:
    """Do `read_keys` in steps, because a set of many large keys takes 0.1 s to check.

    Yields:
        None after each key, and the result at the end.

    Raises:
        JwksError: as `read_keys`.
    """
    jwks = _read_set(document)
    keys: list[VerificationKey] = []
    unusable: list[tuple[str, str]] = []
    for position, jwk in enumerate(jwks):
        # Sets hold keys for encryption beside those for signatures.
        if jwk.get("use") == "enc":
            continue
        try:
            keys.append(read_key(jwk, allowed))
        except JwkError as error:
            unusable.append((_name_of(jwk, position), str(error)))
        yield None
    if not keys:
        raise JwksError(_explain_no_key(unusable, allowed))
    yield KeysFound(tuple(keys), tuple(unusable))


def read_key(jwk: Mapping[str, Any], allowed: frozenset[str]) -> VerificationKey:
    """Read one JWK.

    Args:
        jwk: the JSON object.
        allowed: names of the algorithms of this issuer, all of them known.

    Raises:
        JwkError: naming the member that is missing, malformed or does not fit.
    """
    if not SECRET_MEMBERS.isdisjoint(jwk):
        raise JwkError("a private or symmetric member is present")
    kid = jwk.get("kid")
    if not isinstance(kid, str) or not 0 < len(kid.encode()) <= MAX_KID_BYTES:
        raise JwkError(f"kid: must be a string of 1..{MAX_KID_BYTES} bytes")
    if jwk.get("use", "sig") != "sig":
        raise JwkError("use: must be sig")
    check_key_ops(jwk)
    algorithm = _find_algorithm(jwk, allowed)
    try:
        public_key = _READERS[algorithm.kty](jwk, algorithm)
    except UnsupportedAlgorithm:
        # An older OpenSSL has no ML-DSA, and one in FIPS mode may have no Ed25519.
        raise JwkError(f"alg: OpenSSL here has no {algorithm.name}") from None
    return VerificationKey(kid, algorithm, public_key)


def _read_set(document: bytes) -> list[dict[str, Any]]:
    """Return the keys of a set that is well-formed and has public members only."""
    try:
        members = read_object(document)
    except StrictJsonError as error:
        raise JwksError(f"the JWKS is not strict JSON: {error}") from None
    jwks = members.get("keys")
    if not isinstance(jwks, list) or not all(isinstance(jwk, dict) for jwk in jwks):
        raise JwksError("keys: must be a list of objects")
    if len(jwks) > MAX_KEYS:
        raise JwksError(f"keys: more than {MAX_KEYS}")
    if any(not SECRET_MEMBERS.isdisjoint(place) for place in (members, *jwks)):
        raise JwksError("a private or symmetric key is in the set")
    kids = [jwk["kid"] for jwk in jwks if isinstance(jwk.get("kid"), str)]
    if len(set(kids)) != len(kids):
        raise JwksError("a kid is repeated")
    return jwks


def _find_algorithm(jwk: Mapping[str, Any], allowed: frozenset[str]) -> Algorithm:
    """Return the key's own algorithm, or the only allowed one that fits it."""
    listed = ", ".join(sorted(allowed))
    fitting = [
        ALGORITHMS[name]
        for name in sorted({canonical_name(name) for name in allowed})
        if _fits(ALGORITHMS[name], jwk)
    ]
    if "alg" in jwk:
        name = jwk["alg"]
        if not isinstance(name, str) or name not in allowed:
            raise JwkError(f"alg: must be one of {listed}")
        own = ALGORITHMS[canonical_name(name)]
        if own not in fitting:
            raise JwkError(f"kty, crv: do not fit alg {name}")
        return own
    if any(algorithm.kty == "AKP" for algorithm in fitting):
        raise JwkError("alg: must be present in a key of type AKP")
    if not fitting:
        raise JwkError(f"kty, crv: fit none of {listed}")
    if len(fitting) > 1:
        names = ", ".join(algorithm.name for algorithm in fitting)
        raise JwkError(f"alg: is missing, and {names} fit; list one of them only")
    return fitting[0]


def _fits(algorithm: Algorithm, jwk: Mapping[str, Any]) -> bool:
    if jwk.get("kty") != algorithm.kty:
        return False
    return algorithm.curve == "" or jwk.get("crv") == algorithm.curve


def _read_rsa(jwk: Mapping[str, Any], _algorithm: Algorithm) -> PublicKey:
    """RFC 7518, section 6.3.1."""
    n, e = read_integer(jwk, "n"), read_integer(jwk, "e")
    check_rsa_key(n, e)
    return RSAPublicNumbers(e, n).public_key()


def _read_ec(jwk: Mapping[str, Any], algorithm: Algorithm) -> PublicKey:
    """RFC 7518, section 6.2.1: coordinates of the full length, a point of the curve."""
    curve = CURVES[algorithm.curve]
    length = (curve.key_size + 7) // 8
    x, y = read_bytes(jwk, "x"), read_bytes(jwk, "y")
    for member, data in (("x", x), ("y", y)):
        if len(data) != length:
            raise JwkError(f"{member}: must be {length} bytes for {algorithm.curve}")
    numbers = EllipticCurvePublicNumbers(
        int.from_bytes(x, "big"), int.from_bytes(y, "big"), curve
    )
    try:
        public_key = numbers.public_key()
    except ValueError:
        raise JwkError(f"x, y: are not a point of {algorithm.curve}") from None
    # OpenSSL takes a number past the field, and reduces it: a second name of the point.
    if public_key.public_numbers() != numbers:
        raise JwkError(f"x, y: are not below the field of {algorithm.curve}")
    return public_key


def _read_okp(jwk: Mapping[str, Any], _algorithm: Algorithm) -> PublicKey:
    """RFC 8037, section 2."""
    data = read_bytes(jwk, "x")
    check_ed25519_point(data)
    return Ed25519PublicKey.from_public_bytes(data)


def _read_akp(jwk: Mapping[str, Any], algorithm: Algorithm) -> PublicKey:
    """RFC 9964, section 4. Only the length of such a key can be wrong."""
    data = read_bytes(jwk, "pub")
    try:
        public_key: PublicKey = algorithm.key_type.from_public_bytes(data)
    except ValueError:
        raise JwkError(f"pub: has a wrong length for {algorithm.name}") from None
    return public_key


_READERS: Final[Mapping[str, Callable[[Mapping[str, Any], Algorithm], PublicKey]]] = (
    MappingProxyType(
        {"RSA": _read_rsa, "EC": _read_ec, "OKP": _read_okp, "AKP": _read_akp}
    )
)


def _name_of(jwk: Mapping[str, Any], position: int) -> str:
    """Return the kid if it can be shown, else the position from 0."""
    kid = jwk.get("kid")
    is_shown = isinstance(kid, str) and 0 < len(kid) <= MAX_KID_BYTES
    return str(kid) if is_shown and is_plain_text(str(kid)) else f"keys[{position}]"


def _explain_no_key(unusable: list[tuple[str, str]], allowed: frozenset[str]) -> str:
    reasons = [f"{name}: {reason}" for name, reason in unusable[:_SHOWN_REASONS]]
    if len(unusable) > _SHOWN_REASONS:
        reasons.append(f"and {len(unusable) - _SHOWN_REASONS} more")
    listed = ", ".join(sorted(allowed))
    return "; ".join([f"no key for {listed} can be used", *reasons])
