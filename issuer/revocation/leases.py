"""Leases: no page is read for a follower before its row is there and was renewed of late.

Lease first, page second: that order carries the proof in docs/revocation.md. One writer
task per process writes the reports of all its followers, many in one statement.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from typing import Final, NamedTuple

from issuer.clock import ElapsedClock
from issuer.db import Database
from issuer.errors import ConflictError, UnavailableError
from issuer.revocation.continuity import Continuity
from issuer.revocation.feed import Position
from issuer.revocation.followers import Follower, Report, notify_followers, record

#: Seconds for which a renewal serves; the term of a lease allows for it.
RENEW_EVERY: Final = 5
#: Seconds between the begins of two writes, when there is always something to write.
_WRITE_INTERVAL: Final = 0.005
_logger = logging.getLogger(__name__)


class _Held(NamedTuple):
    """What this process wrote last for a follower; `at` is before the write began."""

    at: float
    follower: Follower
    position: Position


class _Waiting(NamedTuple):
    report: Report
    written: asyncio.Future[None]


class Leases:
    """Holds the leases of the followers that ask this process.

    Args:
        database: where followers are kept.
        continuity: told of new followers.
        elapsed: seconds that also count while the machine sleeps.
        on_recorded: told after a commit that somebody has applied more, or has gone.
    """

    def __init__(
        self,
        database: Database,
        continuity: Continuity,
        *,
        elapsed: ElapsedClock,
        on_recorded: Callable[[], None],
    ) -> None:
        self._database = database
        self._continuity = continuity
        self._elapsed = elapsed
        self._on_recorded = on_recorded
        self._held: dict[str, _Held] = {}
        self._queue: list[_Waiting] = []
        self._wanted = asyncio.Event()
        self._is_closed = False

    async def hold(self, report: Report) -> None:
        """Return when a page may be read for this follower.

        Without a delay while its lease was renewed of late; what it has applied is then
        written in the background.

        Raises:
            ConflictError: when the report is of another epoch, or of a position that was
                never given out.
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
        waiting = _Waiting(report, asyncio.get_running_loop().create_future())
        waiting.written.add_done_callback(_mark_retrieved)
        self._queue.append(waiting)
        self._wanted.set()
        if not is_fresh or report.replaces:
            await waiting.written

    def close(self) -> None:
        """Let `write` end once all is written."""
        self._is_closed = True
        self._wanted.set()

    async def write(self) -> None:
        """Write what followers say until `close`: at once, or 5 ms after the last time."""
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
        """Take what can be written at once: a row can be written once by one statement."""
        batch: dict[str, list[_Waiting]] = {}
        left: list[_Waiting] = []
        for waiting in self._queue:
            others = batch.setdefault(waiting.report.follower.id, [])
            if others and not _can_merge(others[0].report, waiting.report):
                left.append(waiting)
            else:
                others.append(waiting)
        self._queue = left
        return batch

    async def _write_batch(self, batch: dict[str, list[_Waiting]]) -> None:
        reports = [_merge(waitings) for waitings in batch.values()]
        # Before the write begins: a lease may look older than it is, never younger.
        at = self._elapsed()
        is_news = any(map(self._is_news, reports))
        try:
            async with self._database.write() as db:
                recorded = await record(db, self._continuity, reports)
                if is_news:
                    await notify_followers(db)
        except Exception as error:
            self._fail(batch, error)
            return
        for report in reports:
            position = recorded.get(report.follower.id)
            if position is not None:
                held = _Held(at, report.follower, position)
                self._held[report.follower.id] = held
            for waiting in batch[report.follower.id]:
                if waiting.written.done():
                    continue  # its caller has gone
                if position is not None:
                    waiting.written.set_result(None)
                else:
                    waiting.written.set_exception(
                        ConflictError("The position is of another epoch.")
                    )
        if is_news:
            self._on_recorded()

    def _is_news(self, report: Report) -> bool:
        held = self._held.get(report.follower.id)
        is_known = held is not None and _says_nothing_new(report, held.position)
        return bool(report.replaces) or not is_known

    def _fail(self, batch: dict[str, list[_Waiting]], error: Exception) -> None:
        if not isinstance(error, UnavailableError):
            _logger.error("leases.write_failed", exc_info=error)
            error = UnavailableError(detail="the lease was not written")
        for waitings in batch.values():
            for waiting in waitings:
                if not waiting.written.done():
                    waiting.written.set_exception(error)

    def _forget_old(self) -> None:
        """Drop what serves no longer: every process of a verifier has an id of its own."""
        oldest = self._elapsed() - RENEW_EVERY
        if any(held.at < oldest for held in self._held.values()):
            self._held = {id: h for id, h in self._held.items() if h.at >= oldest}


def _says_nothing_new(report: Report, position: Position) -> bool:
    if report.replaces:
        return False
    if report.epoch is None:
        return True
    return report.epoch == position.epoch and report.position <= position


def _can_merge(one: Report, other: Report) -> bool:
    return one.epoch == other.epoch and one.follower == other.follower


def _merge(waitings: list[_Waiting]) -> Report:
    first = waitings[0].report
    if len(waitings) == 1:
        return first
    reports = [waiting.report for waiting in waitings]
    return first._replace(
        position=max(report.position for report in reports),
        replaces=tuple({old for report in reports for old in report.replaces}),
    )


def _mark_retrieved(future: asyncio.Future[None]) -> None:
    # Of a report in the background nobody waits for the outcome: it is said again.
    if not future.cancelled():
        future.exception()
