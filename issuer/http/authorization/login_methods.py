"""The methods of a login: `amr` (RFC 8176) and `acr` of an access token. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

#: RFC 8176, section 2.
PASSWORD: Final = "pwd"  # noqa: S105
ONE_TIME_PASSWORD: Final = "otp"  # noqa: S105
MULTI_FACTOR: Final = "mfa"

#: The two classes; RFC 9068, section 2.2.1, leaves their names to the issuer.
ACR_PASSWORD: Final = "urn:gatehouse:acr:password"  # noqa: S105
ACR_SECOND_FACTOR: Final = "urn:gatehouse:acr:second-factor"

BY_PASSWORD: Final = (PASSWORD,)
#: RFC 8176 has no word for a recovery code: two factors, without their names.
BY_RECOVERY_CODE: Final = (PASSWORD, MULTI_FACTOR)
BY_CODE: Final = (PASSWORD, ONE_TIME_PASSWORD, MULTI_FACTOR)


def find_acr(amr: Sequence[str]) -> str | None:
    """Return the class of a login by these methods; None if it was not a person's."""
    if not amr:
        return None
    return ACR_SECOND_FACTOR if MULTI_FACTOR in amr else ACR_PASSWORD
