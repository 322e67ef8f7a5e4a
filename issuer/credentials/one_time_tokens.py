"""One-time tokens: opaque tokens that are good for one act. Pure."""

from __future__ import annotations

from typing import Final

from issuer.errors import InvalidGrantError
from issuer.tokens import opaque_tokens
from issuer.tokens.opaque_tokens import ChecksumForm, OpaqueTokenError

#: The bearer may set a new password.
PASSWORD_RESET: Final = "ghp_"  # noqa: S105
#: The bearer may show the second factor of a login.
LOGIN_CHALLENGE: Final = "ghm_"


def make_token(prefix: str, random: bytes) -> str:
    """Return the token made from 32 random bytes."""
    return ChecksumForm(prefix).make(random)


def digest_token(prefix: str, token: str) -> bytes:
    """Return the digest that the database keeps of a presented token.

    Raises:
        InvalidGrantError: when it has not the form and the checksum of ours.
    """
    try:
        ChecksumForm(prefix).require(token)
    except OpaqueTokenError as error:
        raise InvalidGrantError(
            detail=f"not a one-time token of this kind: {error}"
        ) from None
    return opaque_tokens.digest_token(token)
