"""The form of personal keys, and their digests. Touches nothing.

A key is `ghk_`, 30 characters of 176 random bits, and the CRC-32 of these characters in
6 more, all in base62. A scanner that finds `ghk_[0-9A-Za-z]{36}` in a repository can
check the checksum without a request, and a double click selects the whole key. Base62
has no hyphen, so this form differs from that of the other tokens
(`tokens/opaque_tokens.py`).
"""

from __future__ import annotations

import string
import zlib
from typing import Final

from issuer.errors import InvalidRequestError
from issuer.tokens.opaque_tokens import digest_token

PREFIX: Final = "ghk_"
RANDOM_BYTES: Final = 22
_ALPHABET: Final = string.digits + string.ascii_uppercase + string.ascii_lowercase
_RANDOM_CHARS: Final = 30
_CHECKSUM_CHARS: Final = 6


def make_key(random: bytes) -> str:
    """Return the key made from 22 random bytes."""
    body = _to_base62(int.from_bytes(random), _RANDOM_CHARS)
    return PREFIX + body + _checksum(body)


def is_key(text: str) -> bool:
    """Return whether `text` has the form and the checksum of our keys."""
    body, checksum = text[len(PREFIX) : -_CHECKSUM_CHARS], text[-_CHECKSUM_CHARS:]
    return (
        text.startswith(PREFIX)
        and len(body) == _RANDOM_CHARS
        and set(body) <= set(_ALPHABET)
        and checksum == _checksum(body)
    )


def digest_key(text: str) -> bytes:
    """Return the digest that the database keeps of the key.

    Raises:
        InvalidRequestError: when the form or the checksum is wrong.
    """
    if not is_key(text):
        raise InvalidRequestError("The personal key is not valid.", detail="malformed")
    return digest_token(text)


def _checksum(body: str) -> str:
    return _to_base62(zlib.crc32(body.encode("ascii")), _CHECKSUM_CHARS)


def _to_base62(number: int, width: int) -> str:
    digits = []
    for _ in range(width):
        number, digit = divmod(number, len(_ALPHABET))
        digits.append(_ALPHABET[digit])
    return "".join(reversed(digits))
