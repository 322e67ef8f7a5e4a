"""Opaque tokens: the two forms they have, and their digest. Touches nothing.

Both forms are a prefix, which says what the token is for, and base64url text:

- `ChecksumForm`: random bytes and a checksum. With prefix and checksum, a scanner finds
  these tokens in a repository and reports no other text.
- `MacForm`: a body of fixed length and its MAC. Only text that the issuer made has a
  valid MAC, so a token says something before the database is asked.
"""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final

from shared.jose import base64url

#: Random bytes of a token with a checksum.
RANDOM_BYTES: Final = 32
_CHECKSUM_BYTES: Final = 4
_MAC_BYTES: Final = 32


class OpaqueTokenError(ValueError):
    """The text is not a token of this form; the message does not repeat the text."""


@dataclass(frozen=True, slots=True)
class ChecksumForm:
    """A prefix and the base64url text of 32 random bytes and a checksum of 4.

    Attributes:
        prefix: begins every token; the checksum includes it.
    """

    prefix: str

    def make(self, random: bytes) -> str:
        """Return the token made from 32 random bytes."""
        return self.prefix + base64url.encode(random + self._checksum(random))

    def require(self, text: str) -> None:
        """Return when the text has the form and the checksum.

        Raises:
            OpaqueTokenError: when it has not.
        """
        data = _decode(self.prefix, text)
        random, checksum = data[:RANDOM_BYTES], data[RANDOM_BYTES:]
        if len(random) != RANDOM_BYTES or checksum != self._checksum(random):
            raise OpaqueTokenError("the checksum is wrong")

    def _checksum(self, random: bytes) -> bytes:
        digest = hashlib.sha256(self.prefix.encode("ascii") + random).digest()
        return digest[:_CHECKSUM_BYTES]


@dataclass(frozen=True, slots=True)
class MacForm:
    """A prefix and the base64url text of a body and its HMAC-SHA-256.

    Attributes:
        prefix: begins every token.
        body_bytes: length of the body.
        purpose: separates the MACs of tokens that are made with the same key.
    """

    prefix: str
    body_bytes: int
    purpose: bytes

    def make(self, body: bytes, key: bytes) -> str:
        """Return the token; the same arguments always give the same token."""
        return self.prefix + base64url.encode(body + self._mac(body, key))

    def read(self, text: str, keys: Iterable[bytes]) -> bytes:
        """Return the body of a token that was made with one of these keys.

        Raises:
            OpaqueTokenError: for any other text.
        """
        body, mac = self._split(text)
        if not any(hmac.compare_digest(mac, self._mac(body, key)) for key in keys):
            raise OpaqueTokenError("the MAC is wrong")
        return body

    def read_unverified(self, text: str) -> bytes:
        """Return the body without checking the MAC. Anyone can write such a token.

        Raises:
            OpaqueTokenError: when the text has not this form.
        """
        return self._split(text)[0]

    def _split(self, text: str) -> tuple[bytes, bytes]:
        size = self.body_bytes + _MAC_BYTES
        # The length first: longer text is not decoded.
        if len(text) != len(self.prefix) + _base64url_chars(size):
            raise OpaqueTokenError("the length is wrong")
        data = _decode(self.prefix, text)
        return data[: self.body_bytes], data[self.body_bytes :]

    def _mac(self, body: bytes, key: bytes) -> bytes:
        return hmac.digest(key, self.purpose + b"\0" + body, hashlib.sha256)


def digest_token(token: str) -> bytes:
    """Return the SHA-256 digest that the database keeps of a token in ASCII.

    A plain digest is enough: an opaque token is random or has a MAC, unlike a password.
    """
    return hashlib.sha256(token.encode("ascii")).digest()


def _decode(prefix: str, text: str) -> bytes:
    if not text.startswith(prefix) or not text.isascii():
        raise OpaqueTokenError("the prefix is wrong")
    try:
        return base64url.decode(text.removeprefix(prefix).encode("ascii"))
    except base64url.Base64urlError:
        raise OpaqueTokenError("it is not base64url") from None


def _base64url_chars(size: int) -> int:
    # Without padding.
    return -(-size * 4 // 3)
