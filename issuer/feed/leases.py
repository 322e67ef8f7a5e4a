"""Leases: a follower's row exists and is renewed before a page is read for it.

Lease first, page second: the proof in docs/revocation.md depends on this order. One
task per process writes the reports of all its followers, many in one statement.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from typing import Final, NamedTuple

from sqlalchemy.ext.asyncio import AsyncSession

from issuer.clock import seconds
from issuer.errors import ConflictError, UnavailableError
from issuer.feed.continuity import Continuity
from issuer.feed.feed import Position
from issuer.feed.followers import (
    Departure,
    Follower,
    Report,
    leave,
    notify_followers,
    record,
)
from issuer.foundation import Foundation
from shared import log

#: Seconds for which a renewal is used again; the term of a lease includes them.
RENEW_EVERY: Final = 5
#: Seconds between the starts of two writes under continuous load.
_WRITE_INTERVAL: Final = 0.005
_LOG = logging.getLogger(__name__)


class _Held(NamedTuple):
    """The last write of this process for a follower; `at` is before its start."""

    at: float
    follower: Follower
    position: Position


class _Waiting(NamedTuple):
    said: Report | Departure
    written: asyncio.Future[None]


class Leases:
    """Holds the leases of the followers that send requests to this process.

    Args:
        base: gives the database, the clock for informational dates, and the elapsed
            seconds, which also count while the machine sleeps.
        continuity: prepared for new followers.
        on_recorded: called after a commit when a follower has applied more or has left.
    """

    def __init__(
        self,
        base: Foundation,
        continuity: Continuity,
        *,
        on_recorded: Callable[[], None],
    ) -> None:
        self._database = base.database
        self._continuity = continuity
        self._clock = base.clock
        self._elapsed = base.elapsed
        self._on_recorded = on_recorded
        self._held: dict[str, _Held] = {}
        self._queue: list[_Waiting] = []
        self._wanted = asyncio.Event()
        self._is_closed = False

    async def hold(self, report: Report) -> None:
        """Return when a page may be read for this follower.

        It returns at once if the lease was renewed recently; the report is then written
        in the background.

        Raises:
            ConflictError: when the report has another epoch, or a position that was
                never assigned.
            UnavailableError: when the lease could not be written.
        """
        held = self._held.get(report.follower.id)
        is_fresh = (
            held is not None
            and held.follower == report.follower
            and self._elapsed() - held.at <= RENEW_EVERY
        )
        if is_fresh and held is not None and _says_nothing_new(report, held.position):
            return
        renews = not is_fresh or bool(report.replaces)
        written = self._enqueue(report._replace(renews=renews))
        if renews:
            await written

    async def leave(self, departure: Departure) -> None:
        """End the lease of a follower that leaves.

        It is written after the earlier reports: a pending report would insert the row
        again.

        Raises:
            UnavailableError: when it could not be written.
        """
        await self._enqueue(departure)

    def _enqueue(self, said: Report | Departure) -> asyncio.Future[None]:
        waiting = _Waiting(said, asyncio.get_running_loop().create_future())
        waiting.written.add_done_callback(_mark_retrieved)
        self._queue.append(waiting)
        self._wanted.set()
        return waiting.written

    def close(self) -> None:
        """Let `write` return after all pending reports."""
        self._is_closed = True
        self._wanted.set()

    async def write(self) -> None:
        """Write reports until `close`: at once, or 5 ms after the last write."""
        loop = asyncio.get_running_loop()
        while True:
            await self._wanted.wait()
            if not self._queue:
                if self._is_closed:
                    return
                self._wanted.clear()
                continue
            began = loop.time()
            await self._write_batch(self._take_batch())
            self._forget_old()
            if not self._is_closed:
                await asyncio.sleep(max(0.0, began + _WRITE_INTERVAL - loop.time()))

    def _take_batch(self) -> dict[str, list[_Waiting]]:
        """Take one batch: a statement can write each row once."""
        batch: dict[str, list[_Waiting]] = {}
        left: list[_Waiting] = []
        for waiting in self._queue:
            others = batch.setdefault(waiting.said.id, [])
            if others and not _can_merge(others[0].said, waiting.said):
                left.append(waiting)
            else:
                others.append(waiting)
        self._queue = left
        return batch

    async def _write_batch(self, batch: dict[str, list[_Waiting]]) -> None:
        said = [_merge(waitings) for waitings in batch.values()]
        reports = [one for one in said if isinstance(one, Report)]
        departures = [one for one in said if isinstance(one, Departure)]
        # Read before the write: a lease may look older than it is, never younger.
        at = self._elapsed()
        is_news = bool(departures) or any(map(self._is_news, reports))
        try:
            async with self._database.write() as db:
                recorded = await record(db, self._continuity, reports)
                left = await self._end(db, departures)
                if is_news:
                    await notify_followers(db)
        except Exception as error:
            self._fail(batch, error)
            return
        for report in reports:
            position = recorded.get(report.id)
            if position is not None:
                self._held[report.id] = _Held(at, report.follower, position)
            else:
                # Its row may be deleted: no page until it exists again.
                self._held.pop(report.id, None)
            _settle(batch[report.id], is_written=position is not None)
        for departure in departures:
            self._held.pop(departure.id, None)
            _settle(batch[departure.id], is_written=True)
        for follower, applied in left.items():
            log.event(
                _LOG,
                logging.INFO,
                "follower.left",
                follower=follower,
                position=applied,
            )
        if is_news:
            self._on_recorded()

    async def _end(
        self, db: AsyncSession, departures: list[Departure]
    ) -> dict[str, int]:
        if not departures:
            return {}
        return await leave(db, departures, now=seconds(self._clock))

    def _is_news(self, report: Report) -> bool:
        held = self._held.get(report.id)
        is_known = held is not None and _says_nothing_new(report, held.position)
        return bool(report.replaces) or not is_known

    def _fail(self, batch: dict[str, list[_Waiting]], error: Exception) -> None:
        if not isinstance(error, UnavailableError):
            _LOG.error("leases.write_failed", exc_info=error)
            error = UnavailableError(detail="the lease was not written")
        for waitings in batch.values():
            for waiting in waitings:
                if not waiting.written.done():
                    waiting.written.set_exception(error)

    def _forget_old(self) -> None:
        """Drop old entries: every process of a verifier has its own id."""
        oldest = self._elapsed() - RENEW_EVERY
        if any(held.at < oldest for held in self._held.values()):
            self._held = {id: h for id, h in self._held.items() if h.at >= oldest}


def _says_nothing_new(report: Report, position: Position) -> bool:
    if report.replaces:
        return False
    if report.epoch is None:
        return True
    return report.epoch == position.epoch and report.position <= position.seq


def _can_merge(one: Report | Departure, other: Report | Departure) -> bool:
    if isinstance(one, Report) and isinstance(other, Report):
        return one.epoch == other.epoch and one.follower == other.follower
    return one == other


def _merge(waitings: list[_Waiting]) -> Report | Departure:
    first = waitings[0].said
    if len(waitings) == 1 or isinstance(first, Departure):
        return first
    reports = [one.said for one in waitings if isinstance(one.said, Report)]
    return first._replace(
        position=max(report.position for report in reports),
        replaces=tuple({old for report in reports for old in report.replaces}),
        renews=any(report.renews for report in reports),
    )


def _settle(waitings: list[_Waiting], *, is_written: bool) -> None:
    for waiting in waitings:
        if waiting.written.done():
            continue  # its caller was cancelled
        if is_written:
            waiting.written.set_result(None)
        else:
            waiting.written.set_exception(
                ConflictError("The position is of another epoch.")
            )


def _mark_retrieved(future: asyncio.Future[None]) -> None:
    # A failed report in the background is ignored: the follower repeats it.
    if not future.cancelled():
        future.exception()
