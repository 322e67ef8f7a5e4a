"""The revocation index: immutable, and each next one is at least as strict.

`RevocationIndex.apply` returns the union of the index and new entries. Nothing is ever
un-revoked: an entry is dropped only when every token it could concern has expired.
Applying entries twice, or in another order, gives the same index
(docs/design.md, "The revocation feed").

A million entries must fit in memory, so a key is kept as the 64 bits of its hash.
Python keys that hash with a secret of the process (SipHash). Two keys with one hash
would refuse a token that is not revoked. That fails closed, and with a million entries
it is expected once in 10^13 look-ups.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from itertools import count
from typing import Final, NamedTuple

from shared.feed import EntryKind, FeedEntry
from verifier.check.claims import Claims
from verifier.check.denials import Denied, DenyReason

#: Seconds an entry is kept after the last token it concerns has expired: the leeway,
#: and a margin for a clock that is set back a little.
PRUNE_MARGIN: Final = 300

# hash of the key, when to prune, minimum generation
_RECORD: Final = struct.Struct("<qIQ")
_MAX_PRUNE_AT: Final = (1 << 32) - 1
_MAX_GENERATION: Final = (1 << 64) - 1

#: Groups of a table, buckets of a group, marks of a group: powers of two. Each uses the
#: next bits of a key's hash. With a million records a bucket has 16.
_GROUPS: Final = 1 << 8
_BUCKETS: Final = 1 << 8
_MARKS: Final = 1 << 13


class _Group(NamedTuple):
    """One part of a table.

    A mark is one bit; zero means that no record has these bits of the hash. One look
    at the mark decides for nearly every token, with any number of entries. With a byte
    for each, a table of few entries took 2.7 MB, most of it zeros.
    """

    marks: bytes
    buckets: tuple[bytes, ...]


_EMPTY_GROUP: Final = _Group(bytes(_MARKS // 8), (b"",) * _BUCKETS)


@dataclass(frozen=True, slots=True)
class _KeyTable:
    """An immutable map of one kind's keys, in buckets of packed records.

    A changed table shares all unchanged groups with the one it came from.
    """

    groups: tuple[_Group, ...] = field(default=(_EMPTY_GROUP,) * _GROUPS, repr=False)
    count: int = 0

    def minimum_generation(self, key: str) -> int | None:
        """Return the key's minimum generation; None when it is not in the table."""
        key_hash = hash(key)
        marks, buckets = self.groups[key_hash & 0xFF]
        place = key_hash >> 8 & 0x1FFF
        if not marks[place >> 3] >> (place & 7) & 1:
            return None
        bucket = buckets[place & 0xFF]
        offset = _find(bucket, key_hash)
        if offset < 0:
            return None
        generation: int = _RECORD.unpack_from(bucket, offset)[2]
        return generation

    def union(self, entries: Iterable[FeedEntry]) -> _KeyTable:
        hashed: dict[int, list[tuple[int, FeedEntry]]] = {}
        for entry in entries:
            key_hash = hash(entry.key)
            hashed.setdefault(key_hash % _GROUPS, []).append((key_hash, entry))
        groups = list(self.groups)
        added = 0
        for index, additions in hashed.items():
            groups[index], more = _extend(groups[index], additions)
            added += more
        return _KeyTable(tuple(groups), self.count + added)

    def pruned(self, now: int, part: int, parts: int) -> _KeyTable:
        """Drop expired records from every `parts`-th group, starting at group
        `part`.
        """
        if not self.count:
            return self
        groups = list(self.groups)
        dropped = 0
        for index in range(part, _GROUPS, parts):
            groups[index], fewer = _thin_out(groups[index], now)
            dropped += fewer
        return _KeyTable(tuple(groups), self.count - dropped) if dropped else self


def _extend(
    group: _Group, additions: list[tuple[int, FeedEntry]]
) -> tuple[_Group, int]:
    """Return the group with the hashed entries added, and how many are new."""
    marks = bytearray(group.marks)
    changed: dict[int, bytearray] = {}
    added = 0
    for key_hash, entry in additions:
        place = key_hash // _GROUPS % _MARKS
        index = place % _BUCKETS
        bucket = changed.get(index)
        if bucket is None:
            bucket = changed[index] = bytearray(group.buckets[index])
        # Without a mark there is no record to find.
        has_mark = marks[place >> 3] >> (place & 7) & 1
        offset = _find(bucket, key_hash) if has_mark else -1
        added += _merge_record(bucket, offset, key_hash, entry)
        marks[place >> 3] |= 1 << (place & 7)
    return _Group(bytes(marks), _replaced(group.buckets, changed)), added


def _thin_out(group: _Group, now: int) -> tuple[_Group, int]:
    """Return the group without records expired before `now`, and how many were
    dropped.
    """
    marks = bytearray(_MARKS // 8)
    changed: dict[int, bytearray] = {}
    dropped = 0
    for index, bucket in enumerate(group.buckets):
        kept = bytearray()
        for key_hash, prune_at, generation in _RECORD.iter_unpack(bucket):
            if prune_at >= now:
                kept += _RECORD.pack(key_hash, prune_at, generation)
                place = key_hash // _GROUPS % _MARKS
                marks[place >> 3] |= 1 << (place & 7)
        if len(kept) != len(bucket):
            changed[index] = kept
            dropped += (len(bucket) - len(kept)) // _RECORD.size
    if not dropped:
        return group, 0
    return _Group(bytes(marks), _replaced(group.buckets, changed)), dropped


def _replaced(
    buckets: tuple[bytes, ...], changed: dict[int, bytearray]
) -> tuple[bytes, ...]:
    replaced = list(buckets)
    for index, bucket in changed.items():
        replaced[index] = bytes(bucket)
    return tuple(replaced)


def _find(bucket: bytes | bytearray, key_hash: int) -> int:
    """Return the offset of the hash's record, or -1."""
    needle = key_hash.to_bytes(8, "little", signed=True)
    offset = bucket.find(needle)
    # A match across two records does not count.
    while offset > 0 and offset % _RECORD.size:
        offset = bucket.find(needle, offset + 1)
    return offset


def _merge_record(
    bucket: bytearray, offset: int, key_hash: int, entry: FeedEntry
) -> int:
    """Add the entry, or merge it into the record at the offset; return how many are
    new.
    """
    _, _, _, generation, prune_at = entry
    prune_at = min(prune_at + PRUNE_MARGIN, _MAX_PRUNE_AT)
    generation = min(generation, _MAX_GENERATION)
    if offset < 0:
        bucket += _RECORD.pack(key_hash, prune_at, generation)
        return 1
    _, old_prune_at, old_generation = _RECORD.unpack_from(bucket, offset)
    _RECORD.pack_into(
        bucket,
        offset,
        key_hash,
        max(prune_at, old_prune_at),
        max(generation, old_generation),
    )
    return 0


_revisions: Final = count(1)


@dataclass(frozen=True, slots=True)
class RevocationIndex:
    """All revocations that could still concern a token that has not expired.

    Attributes:
        jtis, sids, users, clients, kids: the entries of each kind.
        revision: identifies the set of revocations within this process. Two indexes
            share one only if they differ by pruning. What one of them does not revoke,
            the other does not revoke either.
    """

    jtis: _KeyTable = _KeyTable()
    sids: _KeyTable = _KeyTable()
    users: _KeyTable = _KeyTable()
    clients: _KeyTable = _KeyTable()
    kids: _KeyTable = _KeyTable()
    revision: int = field(default_factory=_revisions.__next__, compare=False)

    def apply(self, entries: Iterable[FeedEntry]) -> RevocationIndex:
        """Return the union of this index and `entries`."""
        by_kind: dict[EntryKind, list[FeedEntry]] = {}
        for entry in entries:
            by_kind.setdefault(entry.kind, []).append(entry)

        def united(kind: EntryKind, table: _KeyTable) -> _KeyTable:
            return table.union(by_kind[kind]) if kind in by_kind else table

        return RevocationIndex(
            jtis=united(EntryKind.JTI, self.jtis),
            sids=united(EntryKind.SID, self.sids),
            users=united(EntryKind.USER, self.users),
            clients=united(EntryKind.CLIENT, self.clients),
            kids=united(EntryKind.KID, self.kids),
        )

    def pruned(self, now: int, part: int = 0, parts: int = 1) -> RevocationIndex:
        """Return the index without entries that expired before `now`.

        Args:
            now: Unix seconds.
            part: the slice to prune, 0 to `parts` - 1. Pruning a million entries in one
                go would delay the requests.
            parts: the number of slices.
        """
        cut: Callable[[_KeyTable], _KeyTable] = lambda t: t.pruned(  # noqa: E731
            now, part, parts
        )
        return RevocationIndex(
            jtis=cut(self.jtis),
            sids=cut(self.sids),
            users=cut(self.users),
            clients=cut(self.clients),
            kids=cut(self.kids),
            revision=self.revision,
        )

    def __len__(self) -> int:
        """Return the number of entries."""
        tables = (self.jtis, self.sids, self.users, self.clients, self.kids)
        return sum(table.count for table in tables)

    def check(self, claims: Claims, kid: str) -> None:
        """Check that nothing revokes a token with these claims, signed by `kid`.

        Raises:
            Denied: `revoked_jti`, `revoked_sid`, `revoked_user`, `revoked_client`,
                `revoked_kid`.
        """
        if self.jtis.count and self.jtis.minimum_generation(claims.jti) is not None:
            raise Denied(DenyReason.REVOKED_JTI)
        if self.sids.count and self.sids.minimum_generation(claims.sid) is not None:
            raise Denied(DenyReason.REVOKED_SID)
        if self.users.count:
            least = self.users.minimum_generation(claims.sub)
            if least is not None and claims.gen < least:
                raise Denied(DenyReason.REVOKED_USER)
        # `gen` is the subject's generation. A client's entry concerns tokens whose
        # subject is that client, not tokens of people who signed in through it.
        if self.clients.count and claims.client_id == claims.sub:
            least = self.clients.minimum_generation(claims.client_id)
            if least is not None and claims.gen < least:
                raise Denied(DenyReason.REVOKED_CLIENT)
        if self.kids.count and self.kids.minimum_generation(kid) is not None:
            raise Denied(DenyReason.REVOKED_KID)
