"""The revocations in force, with their keys, in the order in which they came.

`Trust` keeps hashes of the keys. A gateway needs the keys.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator
from itertools import islice
from typing import Final, NamedTuple

from shared.feed import EntryKind, FeedEntry
from verifier.check.revocations import PRUNE_MARGIN

#: The newest changes that are kept in order. A gateway that is further behind is sent
#: everything.
JOURNAL: Final = 100_000


#: Generation and end of each entry, by kind and key.
Kinds = dict[EntryKind, dict[str, tuple[int, int]]]


class LiveEntry(NamedTuple):
    """A revocation in force.

    Attributes:
        kind: what `key` names.
        key: the jti, sid, sub, client_id or kid.
        minimum_generation: the least `gen` still accepted, for `user` and `client`.
    """

    kind: EntryKind
    key: str
    minimum_generation: int


class LiveEntries:
    """Every revocation that could still concern a token that has not expired.

    As in `RevocationIndex`, nothing is ever un-revoked: of two entries for one key the
    higher generation and the later time count.

    Args:
        journal: how many of the newest changes are kept in order.

    Attributes:
        revision: the number of changes so far.
        pruned: how many entries were dropped so far.
    """

    def __init__(self, journal: int = JOURNAL) -> None:
        self._kinds: Kinds = {kind: {} for kind in EntryKind}
        self._journal: deque[LiveEntry] = deque(maxlen=journal)
        self.revision = 0
        self.pruned = 0

    def __len__(self) -> int:
        """Return the number of entries."""
        return sum(map(len, self._kinds.values()))

    def __iter__(self) -> Iterator[LiveEntry]:
        """Return every entry that is there now, also while more are added."""
        return _each(self.by_kind())

    def by_kind(self) -> Kinds:
        """Return every entry that is there now, which does not change with ours.

        It is copied at once, 15 ms for a million.
        """
        return {kind: known.copy() for kind, known in self._kinds.items()}

    def add(self, entries: Iterable[FeedEntry]) -> None:
        """Take the union of what is there and these entries."""
        for _, kind, key, generation, prune_at in entries:
            known = self._kinds[kind]
            before = known.get(key)
            if before is None:
                known[key] = generation, prune_at
            else:
                known[key] = max(before[0], generation), max(before[1], prune_at)
                if before[0] >= generation:
                    continue
            self.revision += 1
            self._journal.append(LiveEntry(kind, key, generation))

    def since(self, revision: int) -> list[LiveEntry] | None:
        """Return the changes after a revision; None when they are not kept any more.

        The last one for a key counts. A key that was pruned meanwhile may be among
        them.
        """
        count = self.revision - revision
        if count > len(self._journal):
            return None
        # From the end: a deque finds a place in its middle slowly.
        return list(islice(reversed(self._journal), count))[::-1]

    def revoked_kids(self) -> frozenset[str]:
        """Return the signing keys that are revoked."""
        return frozenset(self._kinds[EntryKind.KID])

    def prune(self, now: int) -> None:
        """Drop the entries that concern no token any more.

        Args:
            now: Unix seconds.
        """
        for known in self._kinds.values():
            past = [k for k, (_, until) in known.items() if until + PRUNE_MARGIN < now]
            for key in past:
                del known[key]
            self.pruned += len(past)


def _each(kinds: Kinds) -> Iterator[LiveEntry]:
    for kind, known in kinds.items():
        for key, (generation, _) in known.items():
            yield LiveEntry(kind, key, generation)
