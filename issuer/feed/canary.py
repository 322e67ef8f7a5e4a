"""The canary: a revocation of nothing, by which the verifiers time the whole path.

Its key tells when it was sent, so a verifier that applies it knows how long it was on
its way, from the issuer's clock to the gate.
"""

from __future__ import annotations

import uuid
from collections.abc import Callable
from typing import Final

from issuer.clock import Clock
from issuer.feed.feed import Revocation, RevocationFeed
from issuer.storage.db import Database
from shared.feed import EntryKind

#: `canary-<Unix milliseconds>-<uuid>`, as the `jti` of no token.
PREFIX: Final = "canary-"
#: Seconds an entry stays in the feed: a verifier that was away need not see it.
_KEPT: Final = 300


class Canary:
    """Sends canaries; several issuers may each send their own.

    Args:
        database: where the feed is kept.
        feed: carries it.
        clock: gives the time in milliseconds.
        on_sent: told the Unix seconds of each canary once it is committed.
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
            # The time is read inside, after a free connection was waited for: what is
            # measured is the way to the verifiers.
            now_ms = self._clock()
            key = f"{PREFIX}{now_ms}-{uuid.uuid4()}"
            prune_at = now_ms // 1_000 + _KEPT
            position = await self._feed.append(
                db, Revocation(EntryKind.JTI, key, prune_at)
            )
        self._on_sent(now_ms / 1_000)
        return position
