"""The values of the identity headers: their encoding and their length.

The verifier writes them on every allow; the issuer measures them before it grants roles
and scopes. This module is the one place that states the bounds (R63).
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

from shared.claims import MAX_TOKEN_BYTES

#: Bytes that the identity headers of one of our tokens may take, values only: no more
#: than the longest token, which the gateway removes from the request. Many application
#: servers refuse a header line of more than 8,190 bytes (Apache httpd, gunicorn), so a
#: larger identity would pass the gate and fail after it.
MAX_IDENTITY_BYTES: Final = MAX_TOKEN_BYTES
#: Bytes that the verifier adds to the values: status line, names, the decision.
_FIXED_HEAD_BYTES: Final = 512
#: Upper bound of the head of an allow, for tokens of any issuer. Base64 makes at
#: most three bytes of claims from four bytes of token, and percent-encoding makes at
#: most three bytes from one. Every config in deploy/gateways takes a head of this size.
MAX_ALLOW_HEAD_BYTES: Final = MAX_TOKEN_BYTES * 3 // 4 * 3 + _FIXED_HEAD_BYTES

# Visible ASCII without "%", which escapes, and ",", which would join two values.
_SAFE: Final = bytes([byte for byte in range(0x21, 0x7F) if byte not in b"%,"])


def encode_word(word: str) -> bytes:
    """Return the word percent-encoded as UTF-8 (R12).

    CR, LF, NUL, space and everything outside visible ASCII become `%XX`, so a value can
    never end a header or look like two.
    """
    data = word.encode("utf-8")
    if not data.translate(None, _SAFE):
        return data
    return b"".join(
        [bytes([byte]) if byte in _SAFE else b"%%%02X" % byte for byte in data]
    )


def encode_words(words: Iterable[str]) -> bytes:
    """Return the words, each encoded, joined by one space."""
    return b" ".join([encode_word(word) for word in words])


def measure_words(words: Iterable[str]) -> int:
    """Return the bytes that a header with these words takes, one space for each."""
    return sum([len(encode_word(word)) + 1 for word in words])
