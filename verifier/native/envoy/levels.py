"""The revocations of one Envoy in three filters, from the newest to the oldest.

Envoy builds a whole filter anew for each change, in its main thread, while nothing else
comes into force: 8 us an entry of the small one, 1.5 us of the others. So new entries
go into a small filter; when that is full, into a middle one; and only when that is full as
well, into the large one.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from itertools import islice
from typing import Final, NamedTuple

from verifier.native.entries import Kinds, LiveEntries, LiveEntry
from verifier.native.envoy.names import MIDDLE, RECENT, SETTLED
from verifier.native.envoy.revocation_filters import Group, Grouping

#: Entries of the small filter, and of the middle one, at most. The small one is built
#: for each new entry. Each time that it is full, the middle one is: 75 ms when that is
#: full. So less than one of a hundred new entries may wait for it.
RECENT_ENTRIES: Final = 150
MIDDLE_ENTRIES: Final = 50_000
#: Entries that are put in groups between two turns of the event loop: a millisecond.
_AT_ONCE: Final = 2_000


class Level(NamedTuple):
    """The content of one filter.

    Attributes:
        name: of the resource.
        groups: what it revokes.
    """

    name: str
    groups: list[Group]


class Levels:
    """Which changes each filter of one Envoy has.

    Args:
        recent: entries of the small filter at most.
        middle: entries of the middle filter at most.
    """

    def __init__(
        self, recent: int = RECENT_ENTRIES, middle: int = MIDDLE_ENTRIES
    ) -> None:
        self._limits = recent, middle
        #: revisions up to which the large filter, and the middle one, have everything;
        #: None: it has nothing
        self._settled: int | None = None
        self._middle: int | None = None
        self._is_settled_empty = False

    async def fill(self, entries: LiveEntries) -> list[Level]:
        """Return the filters that change, the small one always, and last.

        They are to be sent in this order, and all of them: each takes over what a later
        one loses. Only a small one that lets nothing pass may come first.
        """
        revision = entries.revision
        recent, levels = self._newer(entries, self._middle), []
        if recent is None or len(recent) > self._limits[0]:
            middle = self._newer(entries, self._settled)
            if middle is not None and len(middle) <= self._limits[1]:
                levels.append(Level(MIDDLE, await _grouped(middle)))
            else:
                levels += await self._fill_all(entries)
            self._middle, recent = revision, []
        levels.append(Level(RECENT, await _grouped(recent)))
        return levels

    async def _fill_all(self, entries: LiveEntries) -> list[Level]:
        """Return the middle filter and the large one, with every entry in one of them.

        An empty one costs each request less, so the large one has them only when they
        are too many for the other.
        """
        revision, count = entries.revision, len(entries)
        groups = await asyncio.to_thread(_all_grouped, entries.by_kind())
        if count > self._limits[1]:
            self._settled, self._is_settled_empty = revision, False
            return [Level(SETTLED, groups), Level(MIDDLE, [])]
        filled = [Level(MIDDLE, groups)]
        if not self._is_settled_empty:
            self._settled, self._is_settled_empty = None, True
            filled.append(Level(SETTLED, []))
        return filled

    def forget(self) -> None:
        """Fill all filters the next time: it is not known what Envoy has."""
        self._settled = self._middle = None
        self._is_settled_empty = False

    @staticmethod
    def _newer(entries: LiveEntries, revision: int | None) -> list[LiveEntry] | None:
        return None if revision is None else entries.since(revision)


def _all_grouped(kinds: Kinds) -> list[Group]:
    grouping = Grouping()
    grouping.add_all(kinds)
    return grouping.groups()


async def _grouped(entries: Iterable[LiveEntry]) -> list[Group]:
    """Return the entries in groups; checks are answered while it works."""
    grouping = Grouping()
    left = iter(entries)
    while batch := list(islice(left, _AT_ONCE)):
        grouping.add(batch)
        await asyncio.sleep(0)
    return grouping.groups()
