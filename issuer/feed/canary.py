"""The canary: a revocation of no token, with which verifiers measure the whole path.

Its key has the time of sending, so a verifier that applies it can measure the delay
from the issuer's clock to the gate.
"""

from __future__ import annotations

import uuid
from typing import Final

from issuer.feed.feed import Revocation, RevocationFeed
from issuer.foundation import Foundation
from shared.feed import EntryKind

#: `canary-<Unix milliseconds>-<uuid>`: a `jti` that no token has.
PREFIX: Final = "canary-"
#: Seconds an entry stays in the feed: a verifier that was away does not need it.
_KEPT: Final = 300


class Canary:
    """Sends canaries; several issuers may each send their own.

    Args:
        base: gives the database, the clock and the metrics.
        feed: gets the canaries.
    """

    def __init__(self, base: Foundation, feed: RevocationFeed) -> None:
        self._database = base.database
        self._feed = feed
        self._clock = base.clock
        self._on_sent = base.metrics.canary

    async def send(self) -> int:
        """Append one canary and return its position in the feed.

        Raises:
            UnavailableError: when the database is away.
        """
        async with self._database.write() as db:
            # The time is read here, after waiting for a connection: only the way to the
            # verifiers is measured.
            now_ms = self._clock()
            key = f"{PREFIX}{now_ms}-{uuid.uuid4()}"
            prune_at = now_ms // 1_000 + _KEPT
            position = await self._feed.append(
                db, Revocation(EntryKind.JTI, key, prune_at)
            )
        self._on_sent(now_ms / 1_000)
        return position.seq
