"""The revocation feed: appended in commit order, read in pages.

The form is in docs/design.md, "The revocation feed".

The counter row defines the order. An append holds its row lock until the commit, so a
position is never visible before all smaller ones: a reader that has seen `head` has
seen everything up to it. A plain sequence assigns 7 before 6 is committed, and a reader
past 7 never sees 6.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import Any, Final, NamedTuple

import orjson
from sqlalchemy import and_, delete, event, insert, select, text, update
from sqlalchemy.ext.asyncio import AsyncSession

from issuer.errors import ConflictError
from issuer.feed.continuity import Continuity, HeadReading
from issuer.feed.wake_ups import HEAD_CHANNEL
from issuer.foundation import Foundation
from issuer.storage.tables.feed import FeedEntryRow, FeedHead
from shared.claims import CLOCK_ALLOWANCE
from shared.feed import (
    MAX_PAGE_ENTRIES,
    EntryKind,
    FeedEntry,
    FeedPage,
    encode_page,
)

#: Seconds that entries stay past `prune_at`: once because the minting clock may be
#: ahead of the revoking one, and once because the pruning clock may be ahead of the
#: verifier's.
_PRUNE_MARGIN: Final = 2 * CLOCK_ALLOWANCE
_SNAPSHOT_BATCH: Final = MAX_PAGE_ENTRIES
# One statement on PostgreSQL: other revocations wait from its start to the commit. The
# inserted rows take their numbers from the updated row.
_APPEND: Final = text(f"""
    WITH head AS (
        UPDATE feed_head SET seq = seq + :count WHERE id = 1 RETURNING epoch, seq
    ), entries AS (
        INSERT INTO feed_entries (seq, kind, key, minimum_generation, prune_at)
        SELECT head.seq - :count + number, kind, key, minimum_generation, prune_at
        FROM head, unnest(
            CAST(:kinds AS text[]), CAST(:keys AS text[]),
            CAST(:generations AS bigint[]), CAST(:ends AS bigint[])
        ) WITH ORDINALITY AS given (kind, key, minimum_generation, prune_at, number)
    )
    SELECT epoch, seq, pg_notify('{HEAD_CHANNEL}', CAST(seq AS text)) FROM head
    """)  # noqa: S608


class Revocation(NamedTuple):
    """One thing to revoke.

    Attributes:
        kind: what `key` names.
        key: the jti, sid, sub, client_id or kid.
        prune_at: Unix seconds after which every token it concerns has expired.
        minimum_generation: the least `gen` still accepted, for `user` and `client`.
    """

    kind: EntryKind
    key: str
    prune_at: int
    minimum_generation: int = 0


class FeedHeadNow(NamedTuple):
    """The counter row: epoch and newest position."""

    epoch: str
    seq: int


@dataclass(frozen=True, slots=True)
class Position:
    """A position in the feed.

    After a restore of the database a number alone is ambiguous: the new epoch assigns
    it again to another entry. So two positions have no order.

    Attributes:
        epoch: a UUID.
        seq: the number in this epoch.
    """

    epoch: str
    seq: int


#: Called after the commit with the appended revocations and the last position.
OnAppended = Callable[[tuple[Revocation, ...], int], None]
#: Writes further rows in the transaction of the revocations.
WriteAlso = Callable[[AsyncSession, tuple[Revocation, ...]], Awaitable[None]]


class RevocationFeed:
    """Appends revocations and reads them back.

    Args:
        base: gives the database, the clock, the time to prune by, the settings
            and the metrics.
        continuity: detects a restored database.

    Attributes:
        also: each called within every append, before the counter row is locked. Other
            packages add theirs, before anything is appended.
        on_appended: likewise, on the event loop after the commit of every append.
    """

    def __init__(self, base: Foundation, continuity: Continuity) -> None:
        self._database = base.database
        self._continuity = continuity
        self._clock = base.clock
        self._prune_time = base.prune_time
        self._issuer_url = base.settings.url
        self._max_ttl = base.settings.access_ttl
        self._metrics = base.metrics
        self.also: list[WriteAlso] = []
        self.on_appended: list[OnAppended] = []

    async def append(self, db: AsyncSession, *revocations: Revocation) -> Position:
        """Append to the feed as the last statements of the caller's transaction.

        The caller must commit soon: all other revocations wait.

        Args:
            db: the caller's open write transaction.
            revocations: one or more.

        Returns:
            The last position, that of the last revocation.
        """
        # The caller's changes are flushed first, so that the lock is held briefly.
        await db.flush()
        for write in self.also:
            await write(db, revocations)
        if self._database.is_sqlite:
            await self._continuity.change(db)
            last = await _append_by_steps(db, revocations)
        else:
            last = await _append_at_once(db, revocations)

        def tell(_session: Any) -> None:
            self.tell_appended(revocations, last.seq)

        event.listen(db.sync_session, "after_commit", tell, once=True)
        return last

    @property
    def has_companions(self) -> bool:
        """Whether an append writes further rows than those of the feed."""
        return bool(self.also)

    def tell_appended(self, revocations: tuple[Revocation, ...], last: int) -> None:
        """Count committed entries, and call `on_appended` for them."""
        for revocation in revocations:
            self._metrics.revocation(revocation.kind.value)
        self._metrics.feed_head(last)
        for tell in self.on_appended:
            tell(revocations, last)

    async def head(self) -> FeedHeadNow:
        """Return the counter row, and show its position to operators.

        Raises:
            UnavailableError: when the database is away.
        """
        reading = await self._continuity.read()
        self._metrics.feed_head(reading.seq)
        return FeedHeadNow(reading.epoch, reading.seq)

    async def head_position(self) -> Position:
        """Return the newest position; every committed entry is at or before it.

        Raises:
            UnavailableError: when the database is away.
        """
        return Position(*await self.head())

    async def page(self, epoch: str, after: int, limit: int) -> FeedPage:
        """Return the entries after a position, `limit` at most.

        Raises:
            ConflictError: for another epoch, or a position that was never assigned: the
                database is not the one that the caller followed. It must take the
                snapshot.
            UnavailableError: when the database is away.
        """
        as_of = self._clock()
        # One statement reads both, so the entries belong to this head.
        query = (
            select(*self._continuity.head_columns, *_ENTRY_COLUMNS)
            .select_from(FeedHead)
            .outerjoin(
                FeedEntryRow,
                and_(FeedEntryRow.seq > after, FeedEntryRow.seq <= FeedHead.seq),
            )
            .where(FeedHead.id == 1)
            .order_by(FeedEntryRow.seq)
            .limit(limit)
        )
        async with self._database.read() as db:
            rows: Sequence[Any] = (await db.execute(query)).all()
        width = len(self._continuity.head_columns)
        head = HeadReading(*rows[0][:width])
        is_ours = await self._continuity.holds(head)
        if not is_ours or epoch != head.epoch or after > head.seq:
            raise ConflictError("The position is of another epoch: take the snapshot.")
        entries = [_make_entry(row[width:]) for row in rows if row.entry is not None]
        is_whole = len(entries) < limit
        to = head.seq if is_whole else entries[-1].seq
        now = FeedHeadNow(head.epoch, head.seq)
        return self._make_page(now, after, to, as_of, entries)

    async def snapshot(self) -> AsyncIterator[bytes]:
        """Return the JSON of one page with all live entries, in pieces.

        It is read in short transactions: entries up to the first head do not change,
        and may only be pruned meanwhile. A failure ends the answer early, and half a
        page is not valid JSON.

        Raises:
            UnavailableError: when the database is away.
        """
        as_of = self._clock()
        head = await self.head()
        frame = encode_page(self._make_page(head, 0, head.seq, as_of, []))
        return self._stream(frame.removesuffix(b"]}"), head.seq)

    async def _stream(self, opening: bytes, head: int) -> AsyncIterator[bytes]:
        yield opening
        comma = b""
        async for entries in self._batches(head):
            if entries:
                yield comma + orjson.dumps(entries, default=tuple)[1:-1]
                comma = b","
        yield b"]}"

    async def snapshot_lines(self) -> AsyncIterator[bytes]:
        """Return the snapshot as lines; each is a page that continues the previous one.

        Only the last line has the head in `to`, so an answer that ends between two
        lines is recognised as incomplete.

        Raises:
            UnavailableError: when the database is away.
        """
        as_of = self._clock()
        return self._stream_lines(await self.head(), as_of)

    async def _stream_lines(
        self, head: FeedHeadNow, as_of: int
    ) -> AsyncIterator[bytes]:
        after, batch = 0, list[FeedEntry]()
        async for following in self._batches(head.seq):
            if batch and following:
                to = batch[-1].seq
                yield self._encode_line(head, after, to, as_of, batch)
                after = to
            batch = following or batch
        yield self._encode_line(head, after, head.seq, as_of, batch)

    def _encode_line(
        self,
        head: FeedHeadNow,
        after: int,
        to: int,
        as_of: int,
        entries: list[FeedEntry],
    ) -> bytes:
        return encode_page(self._make_page(head, after, to, as_of, entries)) + b"\n"

    async def _batches(self, head: int) -> AsyncIterator[list[FeedEntry]]:
        """Yield the live entries up to `head` in order; the last batch may be empty."""
        after = 0
        while True:
            async with self._database.read() as db:
                entries = await _read_entries(db, after, head, _SNAPSHOT_BATCH)
            yield entries
            if len(entries) < _SNAPSHOT_BATCH:
                return
            after = entries[-1].seq

    async def prune(self) -> int:
        """Delete the entries that concern no living token; return their number.

        Raises:
            UnavailableError: when the database is away.
        """
        before = self._prune_time() - _PRUNE_MARGIN
        async with self._database.write() as db:
            gone = await db.scalars(
                delete(FeedEntryRow)
                .where(FeedEntryRow.prune_at < before)
                .returning(FeedEntryRow.seq)
            )
            return len(gone.all())

    def _make_page(
        self,
        head: FeedHeadNow,
        after: int,
        to: int,
        as_of: int,
        entries: list[FeedEntry],
    ) -> FeedPage:
        return FeedPage(
            iss=self._issuer_url,
            epoch=head.epoch,
            after=after,
            to=to,
            head=head.seq,
            as_of=as_of,
            max_ttl=self._max_ttl,
            entries=entries,
        )


# A snapshot reads a million of these: as text, without the mapper. Measured: 5.5 s of
# processor time for a million before, 4.8 s with this.
_LIVE: Final = text("""
    SELECT seq, kind, key, minimum_generation, prune_at FROM feed_entries
    WHERE seq > :after AND seq <= :head ORDER BY seq LIMIT :most
    """)
_KINDS: Final = {kind.value: kind for kind in EntryKind}

# Labels, because `feed_head` also has a `seq`.
_ENTRY_COLUMNS: Final = (
    FeedEntryRow.seq.label("entry"),
    FeedEntryRow.kind,
    FeedEntryRow.key,
    FeedEntryRow.minimum_generation,
    FeedEntryRow.prune_at,
)


async def _append_at_once(
    db: AsyncSession, revocations: tuple[Revocation, ...]
) -> Position:
    given = {
        "count": len(revocations),
        "kinds": [revocation.kind.value for revocation in revocations],
        "keys": [revocation.key for revocation in revocations],
        "generations": [revocation.minimum_generation for revocation in revocations],
        "ends": [revocation.prune_at for revocation in revocations],
    }
    row = (await db.execute(_APPEND, given)).one()
    return Position(row.epoch, row.seq)


async def _append_by_steps(
    db: AsyncSession, revocations: tuple[Revocation, ...]
) -> Position:
    head = (
        await db.execute(
            update(FeedHead)
            .where(FeedHead.id == 1)
            .values(seq=FeedHead.seq + len(revocations))
            .returning(FeedHead.epoch, FeedHead.seq)
        )
    ).one()
    first = head.seq - len(revocations) + 1
    rows = [
        {
            "seq": seq,
            "kind": revocation.kind.value,
            "key": revocation.key,
            "minimum_generation": revocation.minimum_generation,
            "prune_at": revocation.prune_at,
        }
        for seq, revocation in enumerate(revocations, first)
    ]
    await db.execute(insert(FeedEntryRow), rows)
    return Position(head.epoch, head.seq)


async def _read_entries(
    db: AsyncSession, after: int, to: int, limit: int
) -> list[FeedEntry]:
    rows = await db.execute(_LIVE, {"after": after, "head": to, "most": limit})
    kinds = _KINDS
    return [
        FeedEntry(seq, kinds[kind], key, minimum_generation, prune_at)
        for seq, kind, key, minimum_generation, prune_at in rows.all()
    ]


def _make_entry(row: Any) -> FeedEntry:
    seq, kind, key, minimum_generation, prune_at = row
    return FeedEntry(seq, EntryKind(kind), key, minimum_generation, prune_at)
