"""Rings of named keys, as settings hold them."""

from __future__ import annotations

import re
from typing import Final

from shared import base64url

#: Bytes of one key.
KEY_BYTES: Final = 32
#: The columns that name a key have 64 characters.
_KEY_ID: Final = re.compile(r"[A-Za-z0-9]{1,64}")


class KeyRing(dict[str, bytes]):
    """Named 32-byte keys, newest first: the first is used, the others still open."""

    @property
    def current_id(self) -> str:
        """The id of the key that new things are made with."""
        return next(iter(self))

    @property
    def current(self) -> bytes:
        """The key that new things are made with."""
        return self[self.current_id]


def read_key_ring(text: str) -> KeyRing:
    """Return the ring that `ID:KEY[,ID:KEY...]` writes down.

    Raises:
        ValueError: naming the rule; the text, which holds secrets, is not repeated.
    """
    ring = KeyRing()
    for part in text.split(","):
        key_id, _, key_text = part.strip().partition(":")
        try:
            key = base64url.decode(key_text.encode())
        except base64url.Base64urlError:
            key = b""
        if not _KEY_ID.fullmatch(key_id) or len(key) != KEY_BYTES or key_id in ring:
            raise ValueError(
                "must be ID:KEY[,ID:KEY...] with distinct ids of 1 to 64 ASCII letters "
                "and digits and 32 bytes of base64url each; `python -m issuer generate-secrets` makes one"
            )
        ring[key_id] = key
    return ring


def show_key_ring(ring: KeyRing) -> str:
    """Return what operators may see of a ring: the ids of its keys."""
    return f"(set: {', '.join(ring)})"
