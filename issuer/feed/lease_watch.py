"""Ends leases by observation with this process's own clock.

No stored date has to be trusted by another process. A process that has just started
waits the whole term (docs/revocation.md).
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Final, NamedTuple

from issuer.clock import seconds
from issuer.feed.continuity import Continuity
from issuer.feed.followers import (
    FollowerNow,
    FollowersReading,
    end_lease,
    forget_lapsed,
    notify_followers,
    read_followers,
    settle,
)
from issuer.feed.leases import RENEW_EVERY
from issuer.foundation import Foundation
from issuer.storage.lifetimes import is_future
from shared import log

#: The rates of two clocks differ by less than this.
_RATE: Final = 1.01
_MARGIN: Final = 1
#: Seconds for which a follower that allows stale answers is listed as exempt.
LAPSED_KEPT: Final = 24 * 3_600
_LOG = logging.getLogger(__name__)


def term(staleness: int) -> float:
    """Return the seconds of observation after which a lease is over."""
    return _RATE * staleness + RENEW_EVERY + _MARGIN


class _Seen(NamedTuple):
    what: object
    since: float


class LeaseWatch:
    """Observes every follower's `renewal`, and a new epoch until it is settled.

    Args:
        base: gives the database, the clock, the elapsed clock, the settings and the
            metrics.
        continuity: detects a restored database.
        on_ended: called when a follower is no longer awaited.
    """

    def __init__(
        self, base: Foundation, continuity: Continuity, *, on_ended: Callable[[], None]
    ) -> None:
        self._database = base.database
        self._continuity = continuity
        self._max_staleness = base.settings.max_follower_staleness
        self._clock = base.clock
        self._elapsed = base.elapsed
        self._on_ended = on_ended
        self._on_look = base.metrics.followers
        self._seen: dict[str, _Seen] = {}
        self._epoch_seen: _Seen | None = None

    async def look(self) -> None:
        """Check once; called every second.

        Raises:
            UnavailableError: when the database is away.
        """
        async with self._database.read() as db:
            reading = await read_followers(db, self._continuity)
        # Read after the query: the rows existed at this time, perhaps only just.
        now = self._elapsed()
        if not await self._continuity.holds(reading.head):
            return
        over = self._watch(reading, now)
        has_ended = [await self._end(follower) for follower in over]
        is_settled = await self._settle(reading, now)
        await self._forget_lapsed(reading)
        if any(has_ended) or is_settled:
            self._on_ended()
        lag = max(0, reading.head.seq - reading.least) if reading.awaited else 0
        self._on_look(len(reading.awaited), len(reading.exempt), lag)

    def _watch(self, reading: FollowersReading, now: float) -> list[FollowerNow]:
        """Return the followers whose row has not changed for their term."""
        over = []
        seen: dict[str, _Seen] = {}
        for follower in reading.awaited:
            before = self._seen.get(follower.id)
            if before is None or before.what != follower.renewal:
                before = _Seen(follower.renewal, now)
            seen[follower.id] = before
            if now - before.since >= term(follower.staleness):
                over.append(follower)
        self._seen = seen
        return over

    async def _end(self, follower: FollowerNow) -> bool:
        async with self._database.write() as db:
            now = seconds(self._clock)
            has_ended = await end_lease(db, follower, lapsed_at=now)
            if has_ended:
                await notify_followers(db)
        if has_ended:
            log.event(
                _LOG,
                logging.WARNING,
                "follower.lapsed" if follower.allows_stale else "follower.gone",
                follower=follower.id,
                position=follower.position,
            )
        return has_ended

    async def _settle(self, reading: FollowersReading, now: float) -> bool:
        if reading.head.settled:
            self._epoch_seen = None
            return False
        epoch = reading.head.epoch
        if self._epoch_seen is None or self._epoch_seen.what != epoch:
            self._epoch_seen = _Seen(epoch, now)
        if now - self._epoch_seen.since < term(self._max_staleness):
            return False
        async with self._database.write() as db:
            is_settled = await settle(db, epoch)
            if is_settled:
                await notify_followers(db)
        if is_settled:
            log.event(_LOG, logging.INFO, "feed.epoch_settled", epoch=epoch)
        return is_settled

    async def _forget_lapsed(self, reading: FollowersReading) -> None:
        now = seconds(self._clock)
        before = now - LAPSED_KEPT
        if any(
            f.lapsed_at is not None
            and (f.lapsed_at < before or is_future(f.lapsed_at, now))
            for f in reading.followers
        ):
            async with self._database.write() as db:
                await forget_lapsed(db, before, now)
