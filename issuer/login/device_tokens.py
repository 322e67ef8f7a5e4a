"""Device tokens: what a device that has logged in shows at its next login. Pure.

A stranger who fails at a name again and again makes its owner wait as well, wherever the
network is new. A device that has logged in to the account before is known by its token,
and its guesses count apart (OWASP, "Slow Down Online Guessing Attacks with Device
Cookies"). The token proves nothing else: without the password it opens nothing, and one
that does not count is as good as none.

A token is `ghd_` and the base64url text of

    version 1 byte | user 16 bytes | generation 8 | issued at 8 | device 16 | MAC 32

`generation` is the user's at the login: a new password and a logout everywhere raise it,
and so end all device tokens of the user.
"""

from __future__ import annotations

import secrets
import struct
import uuid
from typing import Final

from issuer.settings.issuer_settings import KeyRing
from issuer.tokens.opaque_tokens import MacForm, OpaqueTokenError
from shared.claims import CLOCK_ALLOWANCE

PREFIX: Final = "ghd_"
_VERSION: Final = 1
_BODY: Final = struct.Struct(">B16sQQ16s")
_DEVICE_BYTES: Final = 16
#: The keys are those of refresh tokens: without a purpose of its own, the MAC of one could
#: be that of the other.
_FORM: Final = MacForm(PREFIX, _BODY.size, b"gatehouse device token")


class DeviceTokens:
    """Makes device tokens and recognises them.

    Args:
        keys: the first makes new tokens, all recognise old ones.
        ttl: seconds a token counts; 0: there are none.
    """

    def __init__(self, keys: KeyRing, ttl: int) -> None:
        self._keys = keys
        self._ttl = ttl

    def issue(self, user_id: str, generation: int, now: int) -> str | None:
        """Return the token of a device that has just logged in; None: there are none.

        Args:
            user_id: who logged in.
            generation: the user's.
            now: Unix seconds.
        """
        if not self._ttl:
            return None
        device = secrets.token_bytes(_DEVICE_BYTES)
        user = uuid.UUID(user_id).bytes
        body = _BODY.pack(_VERSION, user, generation, now, device)
        return _FORM.make(body, self._keys.current)

    def recognise(
        self, token: str | None, user_id: str | None, generation: int, now: int
    ) -> str | None:
        """Return the device whose token this is; None: it counts as no device's.

        Args:
            token: as shown.
            user_id: who logs in; None: no account.
            generation: the user's present one.
            now: Unix seconds.
        """
        body = self._read(token)
        if body is None or user_id is None:
            return None
        _, user, token_generation, issued_at, device = _BODY.unpack(body)
        # Compared with both ends: one from a clock that was ahead does not count (R53). By a
        # little it may have been: replicas differ, and clocks are corrected.
        is_good = (
            user == uuid.UUID(user_id).bytes
            and token_generation == generation
            and -CLOCK_ALLOWANCE <= now - issued_at < self._ttl
        )
        return device.hex() if is_good else None

    def _read(self, token: str | None) -> bytes | None:
        """Return the body of a token that we made."""
        try:
            body = _FORM.read(token or "", self._keys.values())
        except OpaqueTokenError:
            return None
        return body if body[0] == _VERSION else None
