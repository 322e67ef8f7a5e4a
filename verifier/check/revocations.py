"""What has been revoked: an immutable index that only grows stricter.

`RevocationIndex.apply` gives a new index that holds the union of the old one and the
new entries; nothing is ever un-revoked, an entry leaves only when every token it could
concern has expired. Applying the same entries twice, or in another order, gives the same
index (docs/design.md, "The revocation feed").

A million entries must fit beside the program, so a key is kept as the 64 bits of its
hash, which Python keys with a secret per process (SipHash). Two keys with one hash would
refuse a token that is not revoked: fail-closed, and with a million entries expected once
in 10^13 look-ups.
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

#: Seconds an entry outlives the last token it concerns: leeway, and room for a clock
#: that is set back a little.
PRUNE_MARGIN: Final = 300

# hash of the key, when to prune, minimum generation
_RECORD: Final = struct.Struct("<qIQ")
_MAX_PRUNE_AT: Final = (1 << 32) - 1
_MAX_GENERATION: Final = (1 << 64) - 1

#: A table's groups, the buckets in a group, the marks in a group: powers of two, and
#: each takes the next bits of a key's hash. A million records make 16 a bucket.
_GROUPS: Final = 1 << 8
_BUCKETS: Final = 1 << 8
_MARKS: Final = 1 << 13


class _Group(NamedTuple):
    """One part of a table.

    A mark is one byte: zero says that no record has this place. Nearly every token is
    settled by one look at its mark, however many are revoked.
    """

    marks: bytes
    buckets: tuple[bytes, ...]


_EMPTY_GROUP: Final = _Group(bytes(_MARKS), (b"",) * _BUCKETS)


@dataclass(frozen=True, slots=True)
class _KeyTable:
    """An immutable map of one kind's keys, in buckets of packed records.

    A changed table shares every untouched group with the one it came from.
    """

    groups: tuple[_Group, ...] = field(default=(_EMPTY_GROUP,) * _GROUPS, repr=False)
    count: int = 0

    def minimum_generation(self, key: str) -> int | None:
        """Return the key's minimum generation, or None when it is not in the table."""
        key_hash = hash(key)
        marks, buckets = self.groups[key_hash & 0xFF]
        place = key_hash >> 8 & 0x1FFF
        if not marks[place]:
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
        """Drop what expired in every `parts`-th group, beginning with group `part`."""
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
    """Return the group with the entries, given with their hashes, and how many are new."""
    marks = bytearray(group.marks)
    changed: dict[int, bytearray] = {}
    added = 0
    for key_hash, entry in additions:
        place = key_hash // _GROUPS % _MARKS
        index = place % _BUCKETS
        bucket = changed.get(index)
        if bucket is None:
            bucket = changed[index] = bytearray(group.buckets[index])
        # Where nothing is marked there is nothing to look for.
        offset = _find(bucket, key_hash) if marks[place] else -1
        added += _merge_record(bucket, offset, key_hash, entry)
        marks[place] = 1
    return _Group(bytes(marks), _replaced(group.buckets, changed)), added


def _thin_out(group: _Group, now: int) -> tuple[_Group, int]:
    """Return the group without what expired before `now`, and how many went."""
    marks = bytearray(_MARKS)
    changed: dict[int, bytearray] = {}
    dropped = 0
    for index, bucket in enumerate(group.buckets):
        kept = bytearray()
        for key_hash, prune_at, generation in _RECORD.iter_unpack(bucket):
            if prune_at >= now:
                kept += _RECORD.pack(key_hash, prune_at, generation)
                marks[key_hash // _GROUPS % _MARKS] = 1
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
    # A match across two records is none.
    while offset > 0 and offset % _RECORD.size:
        offset = bucket.find(needle, offset + 1)
    return offset


def _merge_record(
    bucket: bytearray, offset: int, key_hash: int, entry: FeedEntry
) -> int:
    """Add the entry, or raise the one at the offset; return how many were added."""
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
    """Everything revoked that could still concern a living token.

    Attributes:
        jtis, sids, users, clients, kids: the entries of each kind.
        revision: names what is revoked here, in this process; no two indexes share one,
            but those that differ in what was pruned. What one does not revoke no other
            of the same revision does.
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
        """Return the index without what expired before `now`, Unix seconds.

        Args:
            now: the time now.
            part: which slice to look at, 0 to `parts` - 1; a whole sweep of a million
                entries at once would hold up the requests.
            parts: in how many slices the sweep is cut.
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
        """Return the number of live entries."""
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
        # `gen` counts the subject's generation: a client's entry concerns the tokens
        # whose subject is that client, not those of people who came through it.
        if self.clients.count and claims.client_id == claims.sub:
            least = self.clients.minimum_generation(claims.client_id)
            if least is not None and claims.gen < least:
                raise Denied(DenyReason.REVOKED_CLIENT)
        if self.kids.count and self.kids.minimum_generation(kid) is not None:
            raise Denied(DenyReason.REVOKED_KID)
