"""Recovery codes: for users who have lost their device. Pure.

A code is 80 random bits in base32, in groups of four: too many to search a plain
digest.
"""

from __future__ import annotations

import base64
import hashlib
import re
from typing import Final

from issuer.errors import InvalidSecondFactorError

#: Number of codes that a user gets at a time.
COUNT: Final = 10
RANDOM_BYTES: Final = 10
_GROUP: Final = 4
_NORMAL: Final = re.compile(r"[A-Z2-7]{16}")


def make_code(random: bytes) -> str:
    """Return the code made from 10 random bytes, as `ABCD-EFGH-IJKL-MNOP`."""
    text = base64.b32encode(random).decode("ascii")
    return "-".join(text[i : i + _GROUP] for i in range(0, len(text), _GROUP))


def digest_code(user_id: str, code: str) -> bytes:
    """Return the digest that the database keeps of a user's code.

    Args:
        user_id: its owner; the digest is bound to it.
        code: as typed, in upper or lower case, with or without hyphens.

    Raises:
        InvalidSecondFactorError: when it is malformed.
    """
    normal = code.replace("-", "").replace(" ", "").upper()
    if not _NORMAL.fullmatch(normal):
        raise InvalidSecondFactorError(detail="malformed recovery code")
    return hashlib.sha256(f"{user_id}\0{normal}".encode()).digest()
