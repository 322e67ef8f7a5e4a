"""Records acts that can happen thousands of times a second in few audit rows.

The first act of a kind is written at once, committed before the answer. Later ones
within the window are counted, and one more row records their number and time span
(docs/audit.md). Acts are of one kind when event, actor, subject, facts and network are
equal.

Bounds: a few networks of each kind are distinguished and the others counted together,
and the number of tallies is limited. Counts are kept in the process, so a killed
process loses those of the window; the first rows remain.
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

from issuer.acts import Act, Caller
from issuer.clock import seconds
from issuer.errors import UnavailableError
from issuer.foundation import Foundation
from shared import log

#: Networks of one kind of act that are distinguished within a window.
MAX_SOURCES: Final = 8
#: The subject of acts that name no subject of ours.
UNKNOWN: Final = "unknown"
#: The subject of acts past the bound of tallies, and the source past that of networks.
OTHERS: Final = "others"
_MOST_SOURCES_KEPT: Final = 4_096
#: Rows of counts in one transaction; other writers wait for it.
_BATCH: Final = 500
_LOG: Final = logging.getLogger(__name__)

_Kind: TypeAlias = tuple[str, str, str, tuple[tuple[str, str | int], ...]]


class Overflow(Enum):
    """The handling of an act when the number of tallies has reached its bound.

    OTHERS: it is counted with all others, without its subject. For acts that anyone can
    make from any number of networks. OLDEST: the tally without acts for the longest
    time ends early. For acts of known users and clients: each new tally needs another
    credential.
    """

    OTHERS = "others"
    OLDEST = "oldest"


@dataclass(frozen=True, slots=True)
class TallyLimits:
    """Seconds of a window, number of tallies, and the handling past that number."""

    window: int
    most: int
    overflow: Overflow


@dataclass(slots=True)
class _Tally:
    """The count since `began_at`; `more` does not include the row written first."""

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
        # Before its start: the clock was ahead at that time and was corrected (R53).
        return not 0 <= now - self.began_at < window

    def summarise(self) -> Act:
        counts = {"count": self.more, "since": self.since, "until": self.until}
        facts = {**self.act.facts, **counts}
        return Act(self.act.event, self.act.actor, self.act.subject, facts)


class AuditTallies:
    """Writes the first row at once and counts later acts.

    Args:
        base: gives the database, the clock and the audit.
        find_source: gives the network of a caller's address.
        limits: the window and the number of tallies.
    """

    def __init__(
        self,
        base: Foundation,
        *,
        find_source: Callable[[str], str],
        limits: TallyLimits,
    ) -> None:
        self._database = base.database
        self._audit = base.audit
        self._clock = base.clock
        # Cached: every grant needs it, and clients keep their addresses.
        self._find_source = lru_cache(_MOST_SOURCES_KEPT)(find_source)
        self._limits = limits
        #: In the order of their last act.
        self._tallies: dict[Hashable, _Tally] = {}
        self._sources: Counter[_Kind] = Counter()
        self._ended: list[_Tally] = []

    async def note(self, act: Act, caller: Caller) -> None:
        """Record an act in a transaction of its own, before it takes effect.

        Args:
            act: its facts are from a closed set: every new fact makes a new tally.
            caller: origin of the request.

        Raises:
            UnavailableError: when the database is away and the act is the first of its
                kind.
        """
        now = seconds(self._clock)
        while not (tally := self._find(act, caller, now)).is_open:
            async with tally.opening:
                if not tally.is_open:
                    async with self._database.write() as db:
                        await self._audit(db, tally.act, tally.caller)
                    tally.is_open = True
                    return
            # Another caller wrote the row. The tally may have ended since: search
            # again.
        tally.count(now)

    async def flush(self) -> None:
        """Write the counts of windows that have ended.

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
        """Write every count at the end of the process.

        Raises:
            UnavailableError: when the database is away.
        """
        for key in list(self._tallies):
            self._end(key)
        await self._write_ended()

    def _find(self, act: Act, caller: Caller, now: int) -> _Tally:
        """Return the tally of an act; make it if there is none."""
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
        """Return the tally of an event's other acts; the bound excludes it."""
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
        """End the quietest tally; one that is being opened has waiters and stays."""
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
