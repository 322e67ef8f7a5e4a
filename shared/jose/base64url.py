"""Strict base64url without padding (RFC 7515, section 2; RFC 4648, section 5).

A second spelling of the same bytes would give one token two names, and a cache or a
deny-list has only one of them (requirement R24). So there is exactly one spelling
here: the alphabet of section 5, no padding, no line breaks, unused bits zero.
"""

from __future__ import annotations

import binascii

# Characters of the other alphabet and padding become "!", which is in no alphabet.
_TO_STANDARD = bytes.maketrans(b"-_+/=", b"+/!!!")
_TO_URLSAFE = bytes.maketrans(b"+/", b"-_")
_PADDING = (b"", b"", b"==", b"=")
# The last character of a text of length 4n+2 or 4n+3 carries 4 or 2 loose bits: these
# are the characters whose loose bits are zero.
_LAST_CHARS = (b"", b"", b"AQgw", b"AEIMQUYcgkosw048")


class Base64urlError(ValueError):
    """The text is not the one canonical base64url spelling of any bytes."""


def encode(data: bytes) -> str:
    """Return the canonical base64url text of `data`, without padding."""
    text = binascii.b2a_base64(data, newline=False)
    return text.rstrip(b"=").translate(_TO_URLSAFE).decode("ascii")


def decode(text: bytes) -> bytes:
    """Return the bytes that canonical base64url `text` encodes.

    Args:
        text: ASCII bytes; the empty text encodes no bytes.

    Raises:
        Base64urlError: for a character outside the alphabet, padding, an impossible
            length, or bits set past the last byte.
    """
    loose = len(text) % 4
    if loose and text[-1] not in _LAST_CHARS[loose]:
        raise Base64urlError("not canonical base64url")
    try:
        return binascii.a2b_base64(
            text.translate(_TO_STANDARD) + _PADDING[loose], strict_mode=True
        )
    except binascii.Error:
        raise Base64urlError("not base64url") from None
