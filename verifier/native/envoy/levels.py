"""The revocations of one Envoy in two filters: the newest ones, and all others.

Envoy builds a whole filter anew for each change, in its main thread, while nothing else
comes into force: 8 us an entry of the small one, 1.5 us of the large one. So new
entries go into a small filter, and only when that is full into the large one.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from itertools import islice
from typing import Final, NamedTuple

from verifier.native.entries import Kinds, LiveEntries, LiveEntry
from verifier.native.envoy.revocation_filters import Group, Grouping

#: Entries of the small filter at most, while there are few in all; then one of so many;
#: and never more than so many, which take 25 ms. Each time that it is full the large
#: one is built: a tenth of a second for 30,000 entries, three seconds for a million.
RECENT_ENTRIES: Final = 150
_SHARE: Final = 100
_MOST_RECENT: Final = 2_000
#: Entries that are put in groups between two turns of the event loop: a millisecond.
_AT_ONCE: Final = 2_000


class Filling(NamedTuple):
    """What the filters are to have.

    Attributes:
        settled: of the large one; None where it does not change. It is sent first: it
            takes over what the small one loses.
        recent: of the small one.
    """

    settled: list[Group] | None
    recent: list[Group]


class Levels:
    """Which changes each filter of one Envoy has.

    Args:
        recent: entries of the small filter at most, while there are few in all.
    """

    def __init__(self, recent: int = RECENT_ENTRIES) -> None:
        self._recent = recent
        #: revision up to which the large filter has everything; None: it has nothing
        self._settled: int | None = None

    async def fill(self, entries: LiveEntries) -> Filling:
        """Return what the filters are to have. All of it is to be sent."""
        settled, recent = None, self._newer(entries)
        share = min(len(entries) // _SHARE, _MOST_RECENT)
        if recent is None or len(recent) > max(self._recent, share):
            revision, kinds, recent = entries.revision, entries.by_kind(), []
            settled = await asyncio.to_thread(_all_grouped, kinds)
            self._settled = revision
        return Filling(settled, await _grouped(recent))

    def forget(self) -> None:
        """Fill both filters the next time: it is not known what Envoy has."""
        self._settled = None

    def _newer(self, entries: LiveEntries) -> list[LiveEntry] | None:
        return None if self._settled is None else entries.since(self._settled)


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
