"""The revocation feed: appended in commit order, read in pages (DESIGN.md, section 4).

The counter row makes the order. Whoever appends holds its row lock until the commit, so
a position is never visible before all smaller ones: a reader that has seen `head` has
seen everything up to it. A plain sequence hands out 7 before 6 is committed, and a
reader that went past 7 never sees 6.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from typing import Any, Final, NamedTuple

import orjson
from sqlalchemy import delete, event, insert, select, update
from sqlalchemy.ext.asyncio import AsyncSession

from issuer.clock import Clock, seconds
from issuer.db import Database
from issuer.errors import ConflictError
from issuer.models import FeedEntryRow, FeedHead
from shared.claims import MAX_LEEWAY
from shared.feed import EntryKind, FeedEntry, FeedPage, encode_page

#: Entries stay this long past `prune_at`: verifiers allow leeway, clocks differ.
_PRUNE_MARGIN: Final = 2 * MAX_LEEWAY
_SNAPSHOT_BATCH: Final = 5_000


class Revocation(NamedTuple):
    """One thing to revoke.

    Attributes:
        kind: what `key` names.
        key: the jti, sid, sub, client_id or kid.
        prune_at: Unix seconds after which no token it concerns can be alive.
        minimum_generation: the least `gen` still accepted, for `user` and `client`.
    """

    kind: EntryKind
    key: str
    prune_at: int
    minimum_generation: int = 0


class FeedHeadNow(NamedTuple):
    """The counter row: which count it is, and how far it has come."""

    epoch: str
    seq: int


#: Told after the commit: what was appended, and the last position.
OnAppended = Callable[[tuple[Revocation, ...], int], None]


class RevocationFeed:
    """Appends revocations and reads them back.

    Args:
        database: where the feed is kept.
        clock: gives the time in milliseconds.
        issuer_url: the `iss` of every page.
        max_ttl: longest lifetime of an access token, seconds.
        on_appended: told of every append once it is committed, on the event loop.
    """

    def __init__(
        self,
        database: Database,
        *,
        clock: Clock,
        issuer_url: str,
        max_ttl: int,
        on_appended: OnAppended,
    ) -> None:
        self._database = database
        self._clock = clock
        self._issuer_url = issuer_url
        self._max_ttl = max_ttl
        self._on_appended = on_appended

    async def append(self, db: AsyncSession, *revocations: Revocation) -> int:
        """Append to the feed as the last statements of the caller's transaction.

        The caller commits soon after: everybody else who revokes waits meanwhile.

        Args:
            db: the caller's open write transaction.
            revocations: one or more.

        Returns:
            The last position, that of the last revocation.
        """
        # What the caller changed goes first, so that the lock is held briefly.
        await db.flush()
        last = (
            await db.execute(
                update(FeedHead)
                .where(FeedHead.id == 1)
                .values(seq=FeedHead.seq + len(revocations))
                .returning(FeedHead.seq)
            )
        ).scalar_one()
        first = last - len(revocations) + 1
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

        def tell(_session: Any) -> None:
            self._on_appended(revocations, last)

        event.listen(db.sync_session, "after_commit", tell, once=True)
        return last

    async def head(self) -> FeedHeadNow:
        """Return the counter row.

        Raises:
            UnavailableError: when the database is away.
        """
        async with self._database.read() as db:
            return await _read_head(db)

    async def page(self, epoch: str, after: int, limit: int) -> FeedPage:
        """Return the entries after a position, `limit` at most.

        Raises:
            ConflictError: for another epoch, or a position that was never given out:
                the database is not the one the caller knows. It takes the snapshot.
            UnavailableError: when the database is away.
        """
        as_of = self._clock()
        async with self._database.read() as db:
            # The head first: entries are read later and so at least up to it.
            head = await _read_head(db)
            if epoch != head.epoch or after > head.seq:
                raise ConflictError(
                    "The position is of another epoch: take the snapshot."
                )
            entries = await _read_entries(db, after, head.seq, limit)
        is_whole = len(entries) < limit
        to = head.seq if is_whole else entries[-1].seq
        return self._make_page(head, after, to, as_of, entries)

    async def snapshot(self) -> AsyncIterator[bytes]:
        """Return the JSON of one page with all live entries, in pieces.

        Read in short transactions: entries up to the head that was read first do not
        change any more, they can only be pruned meanwhile, which is their due. A piece
        that fails breaks the answer off, and half a page is no JSON.

        Raises:
            UnavailableError: when the database is away.
        """
        as_of = self._clock()
        head = await self.head()
        frame = encode_page(self._make_page(head, 0, head.seq, as_of, []))
        return self._stream(frame.removesuffix(b"]}"), head.seq)

    async def _stream(self, opening: bytes, head: int) -> AsyncIterator[bytes]:
        yield opening
        after, comma = 0, b""
        while True:
            async with self._database.read() as db:
                entries = await _read_entries(db, after, head, _SNAPSHOT_BATCH)
            if entries:
                yield comma + orjson.dumps(entries, default=tuple)[1:-1]
                after, comma = entries[-1].seq, b","
            if len(entries) < _SNAPSHOT_BATCH:
                break
        yield b"]}"

    async def prune(self) -> int:
        """Delete the entries that no living token can meet; return how many.

        Raises:
            UnavailableError: when the database is away.
        """
        before = seconds(self._clock) - _PRUNE_MARGIN
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


async def _read_head(db: AsyncSession) -> FeedHeadNow:
    row = (
        await db.execute(select(FeedHead.epoch, FeedHead.seq).where(FeedHead.id == 1))
    ).one()
    return FeedHeadNow(row.epoch, row.seq)


async def _read_entries(
    db: AsyncSession, after: int, to: int, limit: int
) -> list[FeedEntry]:
    rows = await db.execute(
        select(
            FeedEntryRow.seq,
            FeedEntryRow.kind,
            FeedEntryRow.key,
            FeedEntryRow.minimum_generation,
            FeedEntryRow.prune_at,
        )
        .where(FeedEntryRow.seq > after, FeedEntryRow.seq <= to)
        .order_by(FeedEntryRow.seq)
        .limit(limit)
    )
    return [
        FeedEntry(seq, EntryKind(kind), key, minimum_generation, prune_at)
        for seq, kind, key, minimum_generation, prune_at in rows
    ]
