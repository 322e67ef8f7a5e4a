"""The signature layer: compact JWS, RS256, one key (RFC 7515, RFC 8725).

The payload is opaque bytes here. Nothing in this module can express `none`, HMAC or a
key taken from the token (R14 to R17).
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import lru_cache
from types import MappingProxyType
from typing import Any, Final, NamedTuple

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.padding import PKCS1v15
from cryptography.hazmat.primitives.hashes import SHA256

from shared.claims import MAX_KID_BYTES, MAX_TOKEN_BYTES
from shared.jose import base64url
from verifier.check.denials import Denied, DenyReason
from verifier.check.strict_json import StrictJsonError, read_object
from verifier.check.trust import VerificationKey

#: Header members that carry keys, URLs, compression or new rules (R16).
FORBIDDEN_MEMBERS: Final = frozenset(
    {"crit", "b64", "jku", "x5u", "x5c", "jwk", "zip", "cty"}
)
_PADDING: Final = PKCS1v15()
_HASH: Final = SHA256()


class CompactJws(NamedTuple):
    """The parts of a compact JWS, not verified.

    Attributes:
        unverified_header: the protected header, strict JSON.
        payload_text: the payload, still encoded.
        signature_text: the signature, still encoded.
        signing_input: the bytes that the signature covers.
    """

    unverified_header: Mapping[str, Any]
    payload_text: bytes
    signature_text: bytes
    signing_input: bytes

    @property
    def unverified_payload(self) -> bytes:
        """The payload's bytes.

        Raises:
            Denied: `token_malformed` when the encoding is not canonical.
        """
        return _decode(self.payload_text)

    @property
    def signature(self) -> bytes:
        """The signature's bytes.

        Raises:
            Denied: `token_malformed` when the encoding is not canonical.
        """
        return _decode(self.signature_text)


def parse_compact(
    unverified_token: bytes, max_bytes: int = MAX_TOKEN_BYTES
) -> CompactJws:
    """Take a compact JWS apart (RFC 7515, section 7.1).

    Args:
        unverified_token: the token.
        max_bytes: the largest size. Size and number of segments are checked before the
            header is decoded. Payload and signature are decoded when they are needed,
            because most garbage is refused for its header.

    Raises:
        Denied: `token_too_large`, `token_malformed`, `header_malformed`.
    """
    if len(unverified_token) > max_bytes:
        raise Denied(DenyReason.TOKEN_TOO_LARGE)
    segments = unverified_token.split(b".", 3)
    if len(segments) != 3:
        raise Denied(DenyReason.TOKEN_MALFORMED)
    header_text, payload_text, signature_text = segments
    signing_input = unverified_token[: len(header_text) + 1 + len(payload_text)]
    header = _read_header(header_text)
    return CompactJws(header, payload_text, signature_text, signing_input)


@lru_cache(maxsize=256)
def _read_header(header_text: bytes) -> Mapping[str, Any]:
    """Read a header. All tokens of one key share it, so recent ones are kept."""
    try:
        return MappingProxyType(read_object(_decode(header_text)))
    except StrictJsonError:
        raise Denied(DenyReason.HEADER_MALFORMED) from None


def _decode(text: bytes) -> bytes:
    try:
        return base64url.decode(text)
    except base64url.Base64urlError:
        raise Denied(DenyReason.TOKEN_MALFORMED) from None


def check_header(
    unverified_header: Mapping[str, Any], accepted: frozenset[str]
) -> None:
    """Check that the header names RS256 and carries no keys or rules (R15, R16).

    Raises:
        Denied: `alg_not_allowed`, `header_forbidden`.
    """
    # Compared for equality, case-sensitive: the token never chooses (RFC 8725, 3.1).
    alg = unverified_header.get("alg")
    if not isinstance(alg, str) or alg not in accepted:
        raise Denied(DenyReason.ALG_NOT_ALLOWED)
    if not FORBIDDEN_MEMBERS.isdisjoint(unverified_header):
        raise Denied(DenyReason.HEADER_FORBIDDEN)


def check_typ(unverified_header: Mapping[str, Any], accepted: frozenset[str]) -> None:
    """Check the explicit type, case-insensitive as media types are (RFC 9068, 4).

    Raises:
        Denied: `typ_not_allowed`, also when the header has no `typ`.
    """
    typ = unverified_header.get("typ")
    if not isinstance(typ, str) or typ.lower() not in accepted:
        raise Denied(DenyReason.TYP_NOT_ALLOWED)


def read_kid(unverified_header: Mapping[str, Any]) -> str:
    """Return the key id: untrusted text, used for one dictionary look-up only (R22).

    Raises:
        Denied: `kid_missing` when there is none, or it is too long.
    """
    kid = unverified_header.get("kid")
    if not isinstance(kid, str) or not 0 < len(kid.encode()) <= MAX_KID_BYTES:
        raise Denied(DenyReason.KID_MISSING)
    return kid


def check_signature(jws: CompactJws, verification_key: VerificationKey) -> None:
    """Check the RS256 signature (RFC 7518, section 3.3).

    Raises:
        Denied: `signature_invalid`.
    """
    try:
        verification_key.public_key.verify(
            jws.signature, jws.signing_input, _PADDING, _HASH
        )
    except InvalidSignature:
        raise Denied(DenyReason.SIGNATURE_INVALID) from None
