"""Client secrets: their form and their digests. Touches nothing.

A secret is `ghs_` and the base64url text of 32 random bytes and a checksum of 4. The
prefix and the checksum let scanners find one in a repository, and find only real ones.
"""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Iterable
from typing import Final

from issuer.errors import InvalidClientError
from shared import base64url

PREFIX: Final = "ghs_"
RANDOM_BYTES: Final = 32
_CHECKSUM_BYTES: Final = 4


def make_secret(random: bytes) -> str:
    """Return the secret made from 32 random bytes."""
    return PREFIX + base64url.encode(random + _checksum(random))


def is_secret(text: str) -> bool:
    """Tell whether `text` has the form and the checksum of a secret of ours."""
    if not text.startswith(PREFIX) or not text.isascii():
        return False
    try:
        data = base64url.decode(text.removeprefix(PREFIX).encode("ascii"))
    except base64url.Base64urlError:
        return False
    random, checksum = data[:RANDOM_BYTES], data[RANDOM_BYTES:]
    return len(random) == RANDOM_BYTES and checksum == _checksum(random)


def digest_secret(secret: str) -> bytes:
    """Return the SHA-256 digest under which the database knows the secret."""
    return hashlib.sha256(secret.encode("ascii")).digest()


def verify_secret(secret: str, digests: Iterable[bytes]) -> None:
    """Return when the secret belongs to one of the digests.

    Raises:
        InvalidClientError: when it does not, or is no secret of ours.
    """
    if secret.isascii():
        digest = digest_secret(secret)
        # All are compared, so the time tells nothing of how many there are before it.
        if True in [hmac.compare_digest(digest, known) for known in digests]:
            return
    kind = "wrong" if is_secret(secret) else "not a"
    raise InvalidClientError(detail=f"{kind} client secret")


def _checksum(random: bytes) -> bytes:
    return hashlib.sha256(PREFIX.encode("ascii") + random).digest()[:_CHECKSUM_BYTES]
