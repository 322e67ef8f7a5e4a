"""The canary: a revocation of no token, with which verifiers measure the whole path.

Its key has the time of sending, so a verifier that applies it can measure the delay
from the issuer's clock to the gate.
"""

from __future__ import annotations

import uuid
from collections.abc import Callable
from typing import Final

from issuer.clock import Clock
from issuer.feed.feed import Revocation, RevocationFeed
from issuer.storage.db import Database
from shared.feed import EntryKind

#: `canary-<Unix milliseconds>-<uuid>`: a `jti` that no token has.
PREFIX: Final = "canary-"
#: Seconds an entry stays in the feed: a verifier that was away does not need it.
_KEPT: Final = 300


class Canary:
    """Sends canaries; several issuers may each send their own.

    Args:
        database: has the feed.
        feed: gets the canaries.
        clock: gives the time in milliseconds.
        on_sent: called with the Unix seconds of each canary after its commit.
    """

    def __init__(
        self,
        database: Database,
        feed: RevocationFeed,
        *,
        clock: Clock,
        on_sent: Callable[[float], None],
    ) -> None:
        self._database = database
        self._feed = feed
        self._clock = clock
        self._on_sent = on_sent

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
