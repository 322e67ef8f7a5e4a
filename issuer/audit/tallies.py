"""Acts that can happen thousands of times a second, in few rows of the audit log.

The first of its kind is a row at once, committed before its caller is answered. Those
like it that follow within the window are counted, and one more row tells how many there
were, from when to when (docs/audit.md). Alike are acts of one event, actor, subject and
facts that come from one network.

What bounds it: a few networks of each are told apart, the rest are counted together;
and there are so many tallies at most. Counts are kept in the process, so one that is
killed loses those of the window; the first rows stand.
"""

from __future__ import annotations

import asyncio
import logging
from collections import Counter
from collections.abc import Callable, Hashable, Iterable, Sequence
from dataclasses import dataclass, field
from enum import Enum
from functools import lru_cache
from typing import Final, TypeAlias

from sqlalchemy.ext.asyncio import AsyncSession

from issuer.acts import Act, AuditWriter, Caller
from issuer.clock import Clock, seconds
from issuer.errors import UnavailableError
from issuer.storage.db import Database
from shared import log

#: Networks of one kind of act that are told apart within a window.
MAX_SOURCES: Final = 8
#: The subject of acts that name none of ours.
UNKNOWN: Final = "unknown"
#: The subject of those past the bound, and of an act the source of those.
OTHERS: Final = "others"
_MOST_SOURCES_KEPT: Final = 4_096
#: Rows of counts in one transaction: others must not wait long.
_BATCH: Final = 500
_LOG: Final = logging.getLogger(__name__)

_Kind: TypeAlias = tuple[str, str, str, tuple[tuple[str, str | int], ...]]


class Overflow(Enum):
    """What happens to an act when there are as many tallies as there may be.

    OTHERS: it is counted with all others, and who it was is not told. For acts that a
        stranger can make, from any number of networks.
    OLDEST: the tally that has been quiet for the longest is ended early. For acts of
        known users and clients: making a new tally costs a credential of its own.
    """

    OTHERS = "others"
    OLDEST = "oldest"


@dataclass(frozen=True, slots=True)
class TallyLimits:
    """How long a window is, seconds; how many tallies there are; what comes after."""

    window: int
    most: int
    overflow: Overflow


@dataclass(slots=True)
class _Tally:
    """What was counted since `began_at`; `more` does not count the row written first."""

    act: Act
    caller: Caller
    kind: _Kind
    began_at: int
    opening: asyncio.Lock = field(default_factory=asyncio.Lock)
    is_open: bool = False
    more: int = 0
    since: int = 0
    until: int = 0

    def count(self, now: int) -> None:
        self.since = self.since or now
        self.until = now
        self.more += 1

    def is_over(self, now: int, window: int) -> bool:
        # Before its begin: the clock was ahead then and was put right (R53).
        return not 0 <= now - self.began_at < window

    def summarise(self) -> Act:
        counts = {"count": self.more, "since": self.since, "until": self.until}
        facts = {**self.act.facts, **counts}
        return Act(self.act.event, self.act.actor, self.act.subject, facts)


class AuditTallies:
    """Writes first rows at once and counts later.

    Args:
        database: where the audit log is.
        audit: writes one row.
        clock: gives the time in milliseconds.
        find_source: gives the network of a caller's address.
        limits: how long it counts, and how much it keeps.
    """

    def __init__(
        self,
        database: Database,
        audit: AuditWriter,
        *,
        clock: Clock,
        find_source: Callable[[str], str],
        limits: TallyLimits,
    ) -> None:
        self._database = database
        self._audit = audit
        self._clock = clock
        # Every grant asks, and its client comes again from where it came.
        self._find_source = lru_cache(_MOST_SOURCES_KEPT)(find_source)
        self._limits = limits
        #: Those noted last stand last.
        self._tallies: dict[Hashable, _Tally] = {}
        self._sources: Counter[_Kind] = Counter()
        self._ended: list[_Tally] = []

    async def note(self, act: Act, caller: Caller) -> None:
        """Record an act (an `issuer.acts.TallyWriter`).

        Args:
            act: its facts are of a closed set: each other fact is another tally.
            caller: where it comes from.

        Raises:
            UnavailableError: when the database is away and it is the first of its kind.
        """
        now = seconds(self._clock)
        while not (tally := self._find(act, caller, now)).is_open:
            async with tally.opening:
                if not tally.is_open:
                    async with self._database.write() as db:
                        await self._audit(db, tally.act, tally.caller)
                    tally.is_open = True
                    return
            # Another wrote the row. It is looked for again, for it may have ended since.
        tally.count(now)

    async def flush(self) -> None:
        """Write the counts of windows that are over.

        Raises:
            UnavailableError: when the database is away. The counts are kept.
        """
        now = seconds(self._clock)
        over = [
            key
            for key, tally in self._tallies.items()
            if tally.is_over(now, self._limits.window) and not tally.opening.locked()
        ]
        for key in over:
            self._end(key)
        await self._write_ended()

    async def close(self) -> None:
        """Write every count, as the process ends.

        Raises:
            UnavailableError: when the database is away.
        """
        for key in list(self._tallies):
            self._end(key)
        await self._write_ended()

    def _find(self, act: Act, caller: Caller, now: int) -> _Tally:
        """Return the tally in which an act counts, made now if need be."""
        kind = (act.event, act.actor, act.subject, tuple(sorted(act.facts.items())))
        source = self._find_source(caller.address)
        tally = self._take((kind, source), now)
        if tally is not None:
            return tally
        if act.subject != UNKNOWN and self._sources[kind] >= MAX_SOURCES:
            source, caller = OTHERS, Caller(OTHERS)
            tally = self._take((kind, source), now)
            if tally is not None:
                return tally
        if len(self._tallies) >= self._limits.most:
            if self._limits.overflow is Overflow.OTHERS:
                return self._find_others(act, now)
            self._end_quietest()
        return self._begin((kind, source), _Tally(act, caller, kind, now))

    def _find_others(self, act: Act, now: int) -> _Tally:
        """One for each event: a few more than the bound."""
        rest = Act(act.event, act.actor, OTHERS)
        kind = (rest.event, rest.actor, rest.subject, ())
        tally = self._take((kind, OTHERS), now)
        if tally is not None:
            return tally
        return self._begin((kind, OTHERS), _Tally(rest, Caller(OTHERS), kind, now))

    def _take(self, key: Hashable, now: int) -> _Tally | None:
        tally = self._tallies.get(key)
        if tally is None:
            return None
        if tally.is_over(now, self._limits.window) and not tally.opening.locked():
            self._end(key)
            return None
        self._tallies[key] = self._tallies.pop(key)
        return tally

    def _begin(self, key: Hashable, tally: _Tally) -> _Tally:
        self._tallies[key] = tally
        self._sources[tally.kind] += 1
        return tally

    def _end_quietest(self) -> None:
        """One that is being opened stays: what waits for it counts there."""
        quiet = (k for k, t in self._tallies.items() if not t.opening.locked())
        key = next(quiet, None)
        if key is not None:
            self._end(key)

    def _end(self, key: Hashable) -> None:
        tally = self._tallies.pop(key)
        self._sources[tally.kind] -= 1
        if not self._sources[tally.kind]:
            del self._sources[tally.kind]
        if tally.more:
            self._ended.append(tally)

    async def _write_ended(self) -> None:
        while self._ended:
            batch = self._ended[:_BATCH]
            async with self._database.write() as db:
                await self._write(db, batch)
            del self._ended[: len(batch)]

    async def _write(self, db: AsyncSession, batch: Sequence[_Tally]) -> None:
        for tally in batch:
            await self._audit(db, tally.summarise(), tally.caller)


async def write_counts(tallies: Iterable[AuditTallies]) -> None:
    """Write what was counted, as far as the database takes it; the process ends."""
    for each in tallies:
        try:
            await each.close()
        except UnavailableError as error:
            log.event(_LOG, logging.WARNING, "audit.counts_lost", detail=error.detail)
