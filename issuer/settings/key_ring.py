"""Rings of named keys, for settings."""

from __future__ import annotations

import re
from typing import Final

from shared.jose import base64url

#: Bytes of one key.
KEY_BYTES: Final = 32
#: The columns for key ids have 64 characters.
_KEY_ID: Final = re.compile(r"[A-Za-z0-9]{1,64}")


class KeyRing(dict[str, bytes]):
    """Named 32-byte keys: the first is used for new things, all for existing ones."""

    @property
    def current_id(self) -> str:
        """The id of the key for new things."""
        return next(iter(self))

    @property
    def current(self) -> bytes:
        """The key for new things."""
        return self[self.current_id]


def read_key_ring(text: str) -> KeyRing:
    """Return the ring in `ID:KEY[,ID:KEY...]`.

    Raises:
        ValueError: naming the rule; the text has secrets and is not repeated.
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
    """Return the text for operators: the ids of the keys."""
    return f"(set: {', '.join(ring)})"
