"""The credential that verifiers show for the feed, which may be replaced while it runs.

Issuer and verifiers read the new one at different times. The one before therefore counts
for a while (decision 0026); a restart ends it at once.
"""

from __future__ import annotations

import hmac
from typing import Final

from issuer.clock import ElapsedClock

#: Seconds the replaced credential counts. A Kubernetes Secret takes up to two minutes to
#: arrive in all pods.
GRACE: Final = 600.0


class FeedCredential:
    """Checks what a verifier shows.

    Args:
        token: the credential.
        elapsed: gives the seconds since a fixed moment.
    """

    def __init__(self, token: str, elapsed: ElapsedClock) -> None:
        self._token = token.encode()
        self._elapsed = elapsed
        self._before = b""
        self._before_until = float("-inf")

    def replace(self, token: str) -> None:
        """Accept this credential from now on, and the one before for `GRACE` seconds."""
        new = token.encode()
        if new != self._token:
            self._before, self._token = self._token, new
            self._before_until = self._elapsed() + GRACE

    def accepts(self, shown: bytes) -> bool:
        """Tell whether it is the credential, in constant time: no guess shows how far
        it was right.
        """
        is_right = hmac.compare_digest(shown, self._token)
        if self._before and self._elapsed() >= self._before_until:
            self._before = b""
        if self._before:
            is_right |= hmac.compare_digest(shown, self._before)
        return is_right
