"""Ends leases by observation: by our own clock, and from when we saw it ourselves.

No date is stored that another process would have to believe. A process that was just
started has seen nothing yet and waits the whole term (docs/revocation.md).
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Final, NamedTuple

from issuer.clock import Clock, ElapsedClock, seconds
from issuer.feed.continuity import Continuity
from issuer.feed.followers import (
    FollowerNow,
    Standing,
    end_lease,
    forget_lapsed,
    notify_followers,
    read_standing,
    settle,
)
from issuer.feed.leases import RENEW_EVERY
from issuer.storage.db import Database
from issuer.storage.lifetimes import is_future
from shared import log

#: The rates of two clocks differ by less.
_RATE: Final = 1.01
_MARGIN: Final = 1
#: Seconds for which one that allows stale answers is named as exempt.
LAPSED_KEPT: Final = 24 * 3_600
_LOG = logging.getLogger(__name__)

#: Told after each look: followers awaited, followers exempt, and by how many positions
#: the slowest of the awaited is behind.
OnLook = Callable[[int, int, int], None]


def term(staleness: int) -> float:
    """Return the seconds that must be watched until a lease is over."""
    return _RATE * staleness + RENEW_EVERY + _MARGIN


class _Seen(NamedTuple):
    what: object
    since: float


class LeaseWatch:
    """Watches every follower's `renewal`, and a new epoch until it is settled.

    Args:
        database: where followers are kept.
        continuity: tells whether it is still the database we left.
        max_staleness: the longest staleness a follower may claim, seconds.
        clock: gives the time in milliseconds, for what is only kept for information.
        elapsed: gives seconds for all else.
        on_ended: told that somebody is no longer awaited.
        on_look: told how many there are.
    """

    def __init__(
        self,
        database: Database,
        continuity: Continuity,
        *,
        max_staleness: int,
        clock: Clock,
        elapsed: ElapsedClock,
        on_ended: Callable[[], None],
        on_look: OnLook,
    ) -> None:
        self._database = database
        self._continuity = continuity
        self._max_staleness = max_staleness
        self._clock = clock
        self._elapsed = elapsed
        self._on_ended = on_ended
        self._on_look = on_look
        self._seen: dict[str, _Seen] = {}
        self._epoch_seen: _Seen | None = None

    async def look(self) -> None:
        """Look once; called every second.

        Raises:
            UnavailableError: when the database is away.
        """
        async with self._database.read() as db:
            standing = await read_standing(db, self._continuity)
        # After the reading: what it shows was there by now, perhaps only just.
        now = self._elapsed()
        if not await self._continuity.holds(standing.head):
            return
        over = self._watch(standing, now)
        has_ended = [await self._end(follower) for follower in over]
        is_settled = await self._settle(standing, now)
        await self._forget_lapsed(standing)
        if any(has_ended) or is_settled:
            self._on_ended()
        lag = max(0, standing.head.seq - standing.least) if standing.awaited else 0
        self._on_look(len(standing.awaited), len(standing.exempt), lag)

    def _watch(self, standing: Standing, now: float) -> list[FollowerNow]:
        """Return those whose row stood unchanged for their term."""
        over = []
        seen: dict[str, _Seen] = {}
        for follower in standing.awaited:
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

    async def _settle(self, standing: Standing, now: float) -> bool:
        if standing.head.settled:
            self._epoch_seen = None
            return False
        epoch = standing.head.epoch
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

    async def _forget_lapsed(self, standing: Standing) -> None:
        now = seconds(self._clock)
        before = now - LAPSED_KEPT
        if any(
            f.lapsed_at is not None
            and (f.lapsed_at < before or is_future(f.lapsed_at, now))
            for f in standing.followers
        ):
            async with self._database.write() as db:
                await forget_lapsed(db, before, now)
