"""Opaque tokens that are good for one act: their form and their digests. Pure.

A token is its prefix and the base64url text of 32 random bytes and a checksum of 4. The
prefix and the checksum let scanners find one in a repository, and find only real ones.
"""

from __future__ import annotations

import hashlib
from typing import Final

from issuer.errors import InvalidGrantError
from shared import base64url

#: Lets whoever holds it set a new password.
PASSWORD_RESET: Final = "ghp_"  # noqa: S105
#: Lets whoever holds it show the second factor of a login.
LOGIN_CHALLENGE: Final = "ghm_"
RANDOM_BYTES: Final = 32
_CHECKSUM_BYTES: Final = 4


def make_token(prefix: str, random: bytes) -> str:
    """Return the token made from 32 random bytes."""
    return prefix + base64url.encode(random + _checksum(prefix, random))


def digest_token(prefix: str, token: str) -> bytes:
    """Return the SHA-256 digest under which the database knows a presented token.

    A plain digest is enough: the token is 256 random bits, not a password.

    Raises:
        InvalidGrantError: when it has not the form and the checksum of ours.
    """
    if not token.startswith(prefix) or not token.isascii():
        raise InvalidGrantError(detail="not a one-time token of this kind")
    try:
        data = base64url.decode(token.removeprefix(prefix).encode("ascii"))
    except base64url.Base64urlError:
        raise InvalidGrantError(detail="a malformed one-time token") from None
    random, checksum = data[:RANDOM_BYTES], data[RANDOM_BYTES:]
    if len(random) != RANDOM_BYTES or checksum != _checksum(prefix, random):
        raise InvalidGrantError(detail="a one-time token that is not ours")
    return hashlib.sha256(token.encode("ascii")).digest()


def _checksum(prefix: str, random: bytes) -> bytes:
    return hashlib.sha256(prefix.encode("ascii") + random).digest()[:_CHECKSUM_BYTES]
