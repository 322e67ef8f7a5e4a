"""The verifiers' credential for the feed, which can be replaced without a restart.

Issuer and verifiers read a new one at different times. So the previous one is accepted
for a while (decision 0026); a restart ends it at once.
"""

from __future__ import annotations

import hmac
from typing import Final

from issuer.foundation import Foundation

#: Seconds the previous credential is accepted. A Kubernetes Secret takes up to two
#: minutes to reach all pods.
GRACE: Final = 600.0


class FeedCredential:
    """Checks the credential of a verifier.

    Args:
        base: gives the credential, in the settings, and the elapsed seconds.
    """

    def __init__(self, base: Foundation) -> None:
        self._token = base.settings.feed_token.get_secret_value().encode()
        self._elapsed = base.elapsed
        self._before = b""
        self._before_until = float("-inf")

    def replace(self, token: str) -> None:
        """Accept this credential, and the previous one for `GRACE` seconds."""
        new = token.encode()
        if new != self._token:
            self._before, self._token = self._token, new
            self._before_until = self._elapsed() + GRACE

    def accepts(self, shown: bytes) -> bool:
        """Return whether it is the credential, compared in constant time."""
        is_right = hmac.compare_digest(shown, self._token)
        if self._before and self._elapsed() >= self._before_until:
            self._before = b""
        if self._before:
            is_right |= hmac.compare_digest(shown, self._before)
        return is_right
