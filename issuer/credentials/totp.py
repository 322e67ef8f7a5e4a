"""Time-based one-time passwords (RFC 6238), for all authenticator apps. Pure.

Six digits, 30 seconds, HMAC-SHA-1: many apps support no other parameters. SHA-1's
collisions do not affect HMAC (RFC 6238, section 1.2; RFC 4226, appendix B).
"""

from __future__ import annotations

import base64
import hmac
import re
from typing import Final

from cryptography.hazmat.primitives.hashes import SHA1
from cryptography.hazmat.primitives.twofactor.totp import TOTP

from issuer.errors import InvalidSecondFactorError
from shared.claims import CLOCK_ALLOWANCE

#: RFC 4226, section 4, R6: 160 bits are recommended.
SECRET_BYTES: Final = 20
STEP_SECONDS: Final = 30
_DIGITS: Final = 6
#: RFC 6238, section 5.2: one step for the network and for differing clocks.
_STEPS_AROUND: Final = (0, -1, 1)
_CODE: Final = re.compile(r"[0-9]{6}")


def is_code(text: str) -> bool:
    """Return whether `text` has the form of a code."""
    return _CODE.fullmatch(text) is not None


def find_step(secret: bytes, code: str, *, now: int, last_step: int) -> int:
    """Return the time step of a code.

    Args:
        secret: shared with the user's device.
        code: as typed.
        now: Unix seconds.
        last_step: of the last accepted code; it and all before are spent (RFC 6238,
            section 5.2). One past `latest_step` is ignored.

    Raises:
        InvalidSecondFactorError: when it is not a code of this time, or spent.
    """
    if not is_code(code):
        raise InvalidSecondFactorError(detail="malformed code")
    totp = _build(secret)
    current = now // STEP_SECONDS
    for step in (current + offset for offset in _STEPS_AROUND):
        made = totp.generate(step * STEP_SECONDS)
        if hmac.compare_digest(made, code.encode("ascii")):
            if step <= last_step <= latest_step(now):
                raise InvalidSecondFactorError(detail="spent code")
            return step
    raise InvalidSecondFactorError(detail="wrong code")


def latest_step(now: int) -> int:
    """Return the last step whose code can have been accepted until now.

    A later one was accepted while the clock was ahead. It would refuse every code until
    the clock reaches that time (requirement R53).
    """
    return (now + CLOCK_ALLOWANCE) // STEP_SECONDS + max(_STEPS_AROUND)


def show_secret(secret: bytes) -> str:
    """Return the secret in base32, as people type it into an app."""
    return base64.b32encode(secret).decode("ascii")


def build_uri(secret: bytes, *, username: str, issuer: str) -> str:
    """Return the `otpauth:` text that an app reads from a QR code.

    Args:
        secret: shared with the user's device.
        username: names the account in the app.
        issuer: names the issuer in the app.
    """
    # One colon separates issuer and account; apps split at the first or the last.
    issuer, username = (part.replace(":", "-") for part in (issuer, username))
    return _build(secret).get_provisioning_uri(username, issuer)


def _build(secret: bytes) -> TOTP:
    return TOTP(secret, _DIGITS, SHA1(), STEP_SECONDS)  # noqa: S303  RFC 6238
