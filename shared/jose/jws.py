"""Compact JWS, checked strictly (RFC 7515, RFC 8725): one token, one key.

The payload is opaque bytes here. The caller names the algorithms and the key. Nothing
in this module can express `none`, HMAC or a key taken from the token (R14 to R17).
"""

from __future__ import annotations

from enum import StrEnum
from typing import Any, Final

from cryptography.exceptions import InvalidSignature

from shared.claims import MAX_KID_BYTES, MAX_TOKEN_BYTES
from shared.jose import base64url
from shared.jose.algorithms import canonical_name
from shared.jose.strict_json import StrictJsonError, read_object
from shared.jose.verification_keys import VerificationKey

#: Header members that carry keys, URLs, compression or new rules (R16).
FORBIDDEN_MEMBERS: Final = frozenset(
    {"crit", "b64", "jku", "x5u", "x5c", "jwk", "zip", "cty"}
)
#: Characters. A header of 8,000 bytes that is full of lists takes 150 KB.
_LONGEST_KEPT_HEADER: Final = 600
#: All tokens of one key share a header, so those of good tokens are kept. Those of any
#: token would make the refusal of garbage 7 % dearer, and could displace good ones.
_kept_headers: Final[dict[bytes, dict[str, Any]]] = {}
_MAX_KEPT_HEADERS: Final = 256
# An integer: `in` with bytes on both sides raises and drops a TypeError first.
_DOT: Final = ord(".")
#: In the accepted types: a token may have no `typ`.
NO_TYP: Final = ""


class JwsFault(StrEnum):
    """Why a token is refused. The verifier's reasons have the same words."""

    TOKEN_TOO_LARGE = "token_too_large"  # noqa: S105
    TOKEN_MALFORMED = "token_malformed"  # noqa: S105
    HEADER_MALFORMED = "header_malformed"
    HEADER_FORBIDDEN = "header_forbidden"
    ALG_NOT_ALLOWED = "alg_not_allowed"
    TYP_NOT_ALLOWED = "typ_not_allowed"
    KID_MISSING = "kid_missing"
    KID_UNKNOWN = "kid_unknown"
    SIGNATURE_INVALID = "signature_invalid"

    # Enum's own `__hash__` runs in Python, and a refusal is looked up several times.
    __hash__ = str.__hash__


class JwsError(Exception):
    """A check that does not pass. It holds the fault, and nothing of the token."""

    # There is no `__init__`, which would cost as much as the raise.
    args: tuple[JwsFault]

    @property
    def fault(self) -> JwsFault:
        """The reason: the only argument."""
        return self.args[0]


class CompactJws:
    """The parts of a compact JWS, not verified.

    Attributes:
        unverified_header: the protected header, strict JSON. Nothing changes it; a
            proxy, through which it could not be changed, makes a refusal dearer.
        header_text: the header, still encoded.
        payload_text: the payload, still encoded.
        signature_text: the signature, still encoded.
    """

    __slots__ = ("header_text", "payload_text", "signature_text", "unverified_header")

    def __init__(
        self,
        unverified_header: dict[str, Any],
        header_text: bytes,
        payload_text: bytes,
        signature_text: bytes,
    ) -> None:
        self.unverified_header = unverified_header
        self.header_text = header_text
        self.payload_text = payload_text
        self.signature_text = signature_text

    @property
    def signing_input(self) -> bytes:
        """The bytes that the signature covers."""
        return self.header_text + b"." + self.payload_text

    @property
    def unverified_payload(self) -> bytes:
        """The payload's bytes.

        Raises:
            JwsError: `token_malformed` when the encoding is not canonical.
        """
        return _decode(self.payload_text)

    @property
    def signature(self) -> bytes:
        """The signature's bytes.

        Raises:
            JwsError: `token_malformed` when the encoding is not canonical.
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
        JwsError: `token_too_large`, `token_malformed`, `header_malformed`.
    """
    if len(unverified_token) > max_bytes:
        raise JwsError(JwsFault.TOKEN_TOO_LARGE)
    # `partition` looks for the byte with `memchr`, `split` in a loop of its own.
    header_text, _, rest = unverified_token.partition(b".")
    payload_text, dot, signature_text = rest.partition(b".")
    if not dot or _DOT in signature_text:
        raise JwsError(JwsFault.TOKEN_MALFORMED)
    header = _kept_headers.get(header_text)
    if header is None:
        header = _read_header(header_text)
    return CompactJws(header, header_text, payload_text, signature_text)


def _read_header(header_text: bytes) -> dict[str, Any]:
    try:
        return read_object(_decode(header_text))
    except StrictJsonError:
        raise JwsError(JwsFault.HEADER_MALFORMED) from None


def _keep_header(jws: CompactJws) -> None:
    """Keep the header of a token whose signature is good."""
    if len(jws.header_text) <= _LONGEST_KEPT_HEADER:
        if len(_kept_headers) >= _MAX_KEPT_HEADERS:
            _kept_headers.clear()
        _kept_headers[jws.header_text] = jws.unverified_header


def _decode(text: bytes) -> bytes:
    try:
        return base64url.decode(text)
    except base64url.Base64urlError:
        raise JwsError(JwsFault.TOKEN_MALFORMED) from None


def check_header(unverified_header: dict[str, Any], allowed: frozenset[str]) -> None:
    """Check that the header names an allowed algorithm and carries no keys or rules.

    Args:
        unverified_header: the protected header (R15, R16).
        allowed: names of algorithms. `EdDSA` is accepted only if that name is listed.

    Raises:
        JwsError: `alg_not_allowed`, `header_forbidden`.
    """
    # Compared for equality, case-sensitive: the token never chooses (RFC 8725, 3.1).
    alg = unverified_header.get("alg")
    if not isinstance(alg, str) or alg not in allowed:
        raise JwsError(JwsFault.ALG_NOT_ALLOWED)
    if not FORBIDDEN_MEMBERS.isdisjoint(unverified_header):
        raise JwsError(JwsFault.HEADER_FORBIDDEN)


def check_typ(unverified_header: dict[str, Any], accepted: frozenset[str]) -> None:
    """Check the explicit type, case-insensitive as media types are (RFC 9068, 4).

    Args:
        unverified_header: the protected header.
        accepted: types in lower case; `NO_TYP` accepts a header without `typ`, but not
            an empty one.

    Raises:
        JwsError: `typ_not_allowed`.
    """
    if "typ" not in unverified_header:
        if NO_TYP not in accepted:
            raise JwsError(JwsFault.TYP_NOT_ALLOWED)
        return
    typ = unverified_header["typ"]
    if not isinstance(typ, str) or typ == NO_TYP or typ.lower() not in accepted:
        raise JwsError(JwsFault.TYP_NOT_ALLOWED)


def read_kid(unverified_header: dict[str, Any]) -> str:
    """Return the key id: untrusted text, used for one dictionary look-up only (R22).

    Raises:
        JwsError: `kid_missing` when there is none, or it is too long.
    """
    kid = unverified_header.get("kid")
    if not isinstance(kid, str) or not 0 < len(kid.encode()) <= MAX_KID_BYTES:
        raise JwsError(JwsFault.KID_MISSING)
    return kid


def check_signature(jws: CompactJws, verification_key: VerificationKey) -> None:
    """Check the signature by the one algorithm of the key (RFC 7515, section 5.2).

    Raises:
        JwsError: `alg_not_allowed` when the header names another algorithm (R15);
            `token_malformed`, `signature_invalid`.
    """
    alg = jws.unverified_header.get("alg")
    algorithm = verification_key.algorithm
    if not isinstance(alg, str) or canonical_name(alg) != algorithm.name:
        raise JwsError(JwsFault.ALG_NOT_ALLOWED)
    try:
        algorithm.verify(verification_key.public_key, jws.signature, jws.signing_input)
    except InvalidSignature:
        raise JwsError(JwsFault.SIGNATURE_INVALID) from None
    if jws.header_text not in _kept_headers:
        _keep_header(jws)
