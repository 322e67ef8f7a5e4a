"""What has been revoked: an immutable index that only grows stricter.

`RevocationIndex.apply` gives a new index that holds the union of the old one and the
new entries; nothing is ever un-revoked, an entry leaves only when every token it could
concern has expired. Applying the same entries twice, or in another order, gives the same
index (DESIGN.md, section 4).

A million entries must fit beside the program, so a key is kept as the 64 bits of its
hash, which Python keys with a secret per process (SipHash). Two keys with one hash would
refuse a token that is not revoked: fail-closed, and with a million entries expected once
in 10^13 look-ups.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Final

from shared.feed import EntryKind, FeedEntry
from verifier.claims import Claims
from verifier.denials import Denied, DenyReason

#: Seconds an entry outlives the last token it concerns: leeway, and room for a clock
#: that is set back a little.
PRUNE_MARGIN: Final = 300

_BUCKETS: Final = 1 << 16
_MASK: Final = _BUCKETS - 1
# hash of the key, when to prune, minimum generation
_RECORD: Final = struct.Struct("<qIQ")
_MAX_PRUNE_AT: Final = (1 << 32) - 1
_MAX_GENERATION: Final = (1 << 64) - 1
_EMPTY: Final[tuple[bytes, ...]] = (b"",) * _BUCKETS


@dataclass(frozen=True, slots=True)
class _KeyTable:
    """An immutable map of one kind's keys, in buckets of packed records.

    A changed table shares every untouched bucket with the one it came from.
    """

    buckets: tuple[bytes, ...] = _EMPTY
    count: int = 0

    def minimum_generation(self, key: str) -> int | None:
        """Return the key's minimum generation, or None when it is not in the table."""
        key_hash = hash(key)
        bucket = self.buckets[key_hash & _MASK]
        if not bucket:
            return None
        offset = _find(bucket, key_hash)
        if offset < 0:
            return None
        generation: int = _RECORD.unpack_from(bucket, offset)[2]
        return generation

    def union(self, entries: Iterable[FeedEntry]) -> _KeyTable:
        changed: dict[int, bytearray] = {}
        added = 0
        for entry in entries:
            key_hash = hash(entry.key)
            index = key_hash & _MASK
            bucket = changed.get(index)
            if bucket is None:
                bucket = changed[index] = bytearray(self.buckets[index])
            added += _merge_record(bucket, key_hash, entry)
        return self._replaced(changed, self.count + added)

    def pruned(self, now: int, part: int, parts: int) -> _KeyTable:
        """Drop what expired in every `parts`-th bucket, beginning with bucket `part`."""
        if not self.count:
            return self
        changed: dict[int, bytearray] = {}
        dropped = 0
        for index in range(part, _BUCKETS, parts):
            bucket = self.buckets[index]
            kept = b"".join(
                record for record in _records(bucket) if _prune_at(record) >= now
            )
            if len(kept) != len(bucket):
                changed[index] = bytearray(kept)
                dropped += (len(bucket) - len(kept)) // _RECORD.size
        return self._replaced(changed, self.count - dropped) if changed else self

    def _replaced(self, changed: dict[int, bytearray], count: int) -> _KeyTable:
        buckets = list(self.buckets)
        for index, bucket in changed.items():
            buckets[index] = bytes(bucket)
        return _KeyTable(tuple(buckets), count)


def _find(bucket: bytes | bytearray, key_hash: int) -> int:
    """Return the offset of the hash's record, or -1."""
    needle = key_hash.to_bytes(8, "little", signed=True)
    offset = bucket.find(needle)
    # A match across two records is none.
    while offset > 0 and offset % _RECORD.size:
        offset = bucket.find(needle, offset + 1)
    return offset


def _merge_record(bucket: bytearray, key_hash: int, entry: FeedEntry) -> int:
    """Add the entry or raise the one there is; return how many were added."""
    prune_at = min(entry.prune_at + PRUNE_MARGIN, _MAX_PRUNE_AT)
    generation = min(entry.minimum_generation, _MAX_GENERATION)
    offset = _find(bucket, key_hash)
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


def _records(bucket: bytes) -> Iterator[bytes]:
    for offset in range(0, len(bucket), _RECORD.size):
        yield bucket[offset : offset + _RECORD.size]


def _prune_at(record: bytes) -> int:
    prune_at: int = _RECORD.unpack(record)[1]
    return prune_at


@dataclass(frozen=True, slots=True)
class RevocationIndex:
    """Everything revoked that could still concern a living token."""

    jtis: _KeyTable = _KeyTable()
    sids: _KeyTable = _KeyTable()
    users: _KeyTable = _KeyTable()
    clients: _KeyTable = _KeyTable()
    kids: _KeyTable = _KeyTable()

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
