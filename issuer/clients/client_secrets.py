"""Client secrets: opaque tokens with a checksum, compared by their digests."""

from __future__ import annotations

import hmac
from collections.abc import Iterable
from typing import Final

from issuer.errors import InvalidClientError
from issuer.tokens.opaque_tokens import ChecksumForm, OpaqueTokenError, digest_token

_FORM: Final = ChecksumForm("ghs_")


def make_secret(random: bytes) -> str:
    """Return the secret made from 32 random bytes."""
    return _FORM.make(random)


def is_secret(text: str) -> bool:
    """Return whether `text` has the form and the checksum of our secrets."""
    try:
        _FORM.require(text)
    except OpaqueTokenError:
        return False
    return True


def verify_secret(secret: str, digests: Iterable[bytes]) -> None:
    """Return when the secret belongs to one of the digests.

    Raises:
        InvalidClientError: when it does not, or is no secret of ours.
    """
    if secret.isascii():
        digest = digest_token(secret)
        # All are compared, so the time does not depend on how many come before it.
        if True in [hmac.compare_digest(digest, known) for known in digests]:
            return
    kind = "wrong" if is_secret(secret) else "not a"
    raise InvalidClientError(detail=f"{kind} client secret")
