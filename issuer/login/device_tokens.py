"""Device tokens: show at a login that the device has logged in before. Pure.

A stranger's failures for a name also delay its owner in a new network. A device that
has logged in to the account before is recognised by its token, and its failures are
counted separately (OWASP, "Slow Down Online Guessing Attacks with Device Cookies"). The
token proves nothing else: it does not replace the password, and an invalid one counts
as none.

A token is `ghd_` and the base64url text of

    version 1 byte | user 16 bytes | generation 8 | issued at 8 | device 16 | MAC 32

`generation` is the user's at the login: a new password and a logout everywhere raise
it, which ends all device tokens of the user.
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
#: The keys are those of refresh tokens: without a purpose of its own, the MAC of one
#: could be that of the other.
_FORM: Final = MacForm(PREFIX, _BODY.size, b"gatehouse device token")


class DeviceTokens:
    """Makes device tokens and recognises them.

    Args:
        keys: the first makes new tokens, all recognise old ones.
        ttl: seconds a token is valid; 0: no tokens.
    """

    def __init__(self, keys: KeyRing, ttl: int) -> None:
        self._keys = keys
        self._ttl = ttl

    def issue(self, user_id: str, generation: int, now: int) -> str | None:
        """Return a token for a device that has just logged in; None if `ttl` is 0.

        Args:
            user_id: the user.
            generation: of the user.
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
        """Return the id of the token's device; None if the token is not valid.

        Args:
            token: as presented.
            user_id: the account of the login; None if it does not exist.
            generation: the present one of the user.
            now: Unix seconds.
        """
        body = self._read(token)
        if body is None or user_id is None:
            return None
        _, user, token_generation, issued_at, device = _BODY.unpack(body)
        # Both ends are checked: a token from a clock that was ahead is not valid (R53).
        # A small difference is allowed: the clocks of replicas differ.
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
