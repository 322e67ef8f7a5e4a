"""Detects a restored database, and begins a new epoch.

A restored database has fewer followers and assigns positions again: `confirmed` would
be false (docs/revocation.md, "A restored database"). `feed_head.continuity` stores a
value that differs in a restored database; every read of the head compares it with the
present value.
"""

from __future__ import annotations

import asyncio
import logging
import secrets
import uuid
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final, NamedTuple

from sqlalchemy import URL, Text, event, literal_column, select, update
from sqlalchemy.ext.asyncio import AsyncSession

from issuer.errors import UnavailableError
from issuer.feed.wake_ups import notify_head
from issuer.foundation import Foundation
from issuer.storage.tables.feed import FeedHead
from shared import log

#: The present value on PostgreSQL. Restored files need a restart of the server, a
#: promotion or a recovery to a point in time makes a new timeline, and a restored dump
#: makes new objects. The first 8 digits of a WAL file's name are the timeline.
POSTGRES_FOUND: Final = (
    "(SELECT concat_ws(' ', system_identifier,"
    " left(pg_walfile_name(pg_current_wal_lsn()), 8),"
    " extract(epoch FROM pg_postmaster_start_time()),"
    " (SELECT oid FROM pg_database WHERE datname = current_database()),"
    " 'feed_head'::regclass::oid) FROM pg_control_system())"
)
#: Seconds to wait for another process that has committed to write the witness.
_WITNESS_GRACE: Final = 0.25
_WITNESS_LOOK: Final = 0.01
_LOG = logging.getLogger(__name__)


def make_word() -> str:
    """Return a random word: no two states of a SQLite database share one."""
    return secrets.token_hex(16)


class Witness:
    """The file beside a SQLite database with its present continuity.

    Without a file (a database in memory ends with its process) every word matches.
    """

    def __init__(self, path: Path | None) -> None:
        self._path = path

    @classmethod
    def beside(cls, url: URL) -> Witness:
        """Return the witness of the database at this URL."""
        if url.database in (None, "", ":memory:"):
            return cls(None)
        return cls(Path(f"{url.database}-witness"))

    def write(self, word: str) -> None:
        """Write `word`.

        The write is neither atomic nor synced: a lost or partial one differs, and a
        difference only costs a new epoch.

        Raises:
            OSError: when the file cannot be written.
        """
        if self._path is not None:
            self._path.touch(mode=0o600)
            self._path.write_text(word, encoding="ascii")

    def tells(self, word: str) -> bool:
        """Return whether the file has `word`.

        Raises:
            UnavailableError: when the file is there and cannot be read. That is no
                answer: a new epoch would cost every verifier a snapshot (no descriptor
                is left, say).
        """
        if self._path is None:
            return True
        try:
            return self._path.read_bytes() == word.encode()
        except FileNotFoundError:
            return False
        except OSError as error:
            raise UnavailableError(
                detail=f"{self._path} cannot be read: {error.strerror}. It shows "
                "whether the SQLite database beside it was restored."
            ) from error


class HeadReading(NamedTuple):
    """One reading of the counter row.

    Attributes:
        epoch: of the positions.
        seq: the newest position.
        settled: whether no verifier without a row in `followers` can answer 200.
        continuity: stored when the epoch began.
        found: the present value; empty on SQLite.
    """

    epoch: str
    seq: int
    settled: bool
    continuity: str
    found: str


class Continuity:
    """Compares continuities and begins new epochs.

    Args:
        base: gives the database and the metrics.
        on_new_epoch: called after a new epoch has begun.
    """

    def __init__(self, base: Foundation, on_new_epoch: Callable[[], None]) -> None:
        database = self._database = base.database
        self._metrics = base.metrics
        self._on_new_epoch = on_new_epoch
        self._witness = Witness.beside(database.engine.url)
        # Our words that may be committed and are not in the witness yet.
        self._under_way: set[str] = set()
        # Our last word, while the witness could not be written.
        self._unwritten: str | None = None
        found = "''" if database.is_sqlite else POSTGRES_FOUND
        #: The columns of a query of the head: the attributes of `HeadReading`, in
        #: order.
        self.head_columns: Final = (
            FeedHead.epoch,
            FeedHead.seq,
            FeedHead.settled,
            FeedHead.continuity,
            literal_column(found, Text).label("found"),
        )

    async def read(self) -> HeadReading:
        """Return the counter row of a database that was not restored.

        Raises:
            UnavailableError: when the database is away.
        """
        while True:
            async with self._database.read() as db:
                query = select(*self.head_columns).where(FeedHead.id == 1)
                reading = HeadReading(*(await db.execute(query)).one())
            if await self.holds(reading):
                return reading

    async def holds(self, reading: HeadReading) -> bool:
        """Return whether the database is unchanged; if not, begin a new epoch.

        On SQLite, call it after the transaction of the reading has ended.

        Raises:
            UnavailableError: when the database is away.
        """
        if not self._database.is_sqlite:
            if reading.continuity == reading.found:
                return True
            await self.begin_epoch(instead_of=reading.continuity)
            return False
        if self._is_witnessed(reading.continuity):
            return True
        return await self._holds_locked(reading.epoch)

    async def begin_epoch(self, *, instead_of: str | None = None) -> str | None:
        """Begin a new, unsettled epoch; verifiers take the snapshot and keep the union.

        Args:
            instead_of: begin only while this is the continuity, so that one of several
                replicas does it. None: begin in any case.

        Returns:
            The new epoch; None when another replica was first.

        Raises:
            UnavailableError: when the database is away.
        """
        async with self._database.write() as db:
            epoch = await self._begin(db, instead_of)
            self._tell_after_commit(db, epoch)
        return epoch

    async def change(self, db: AsyncSession) -> None:
        """Prepare, on SQLite, a transaction that revokes or adds a follower.

        Call it before the change. The witness is written between the commit and the
        answer; after a crash in between the two differ, and the next start begins a new
        epoch.
        """
        if not self._database.is_sqlite:
            return
        # A new word over one without a witness would hide a restore.
        if await self._is_witnessed_soon(db):
            word = self._promise_word(db)
            await db.execute(update(FeedHead).values(continuity=word))
        else:
            self._tell_after_commit(db, await self._begin(db, None))

    def _tell_after_commit(self, db: AsyncSession, epoch: str | None) -> None:
        def tell(_session: Any) -> None:
            log.event(_LOG, logging.WARNING, "feed.epoch_begun", epoch=epoch)
            self._metrics.epoch()
            self._on_new_epoch()

        if epoch is not None:
            event.listen(db.sync_session, "after_commit", tell, once=True)

    def _promise_word(self, db: AsyncSession) -> str:
        word = make_word()
        self._under_way.add(word)

        def write(_session: Any) -> None:
            self._write_witness(word)
            self._under_way.discard(word)

        def forget(_session: Any) -> None:
            self._under_way.discard(word)

        event.listen(db.sync_session, "after_commit", write, once=True)
        event.listen(db.sync_session, "after_rollback", forget, once=True)
        return word

    def _write_witness(self, word: str) -> None:
        """Write `word`, or keep it until it can be written.

        The change is committed, so this must not fail its request. Without the file
        only a new epoch is lost.
        """
        try:
            self._witness.write(word)
        except OSError as error:
            if self._unwritten is None:
                reason = error.strerror
                log.event(_LOG, logging.WARNING, "feed.witness_unwritten", error=reason)
            self._unwritten = word
        else:
            self._unwritten = None

    def _is_witnessed(self, word: str) -> bool:
        if word == self._unwritten:
            self._write_witness(word)
            return True
        # In this order: a word stays pending until it is in the file.
        return word in self._under_way or self._witness.tells(word)

    async def _is_witnessed_soon(self, db: AsyncSession) -> bool:
        """Compare in a write transaction, during which no other process can commit."""
        word = await db.scalar(select(FeedHead.continuity)) or ""
        patience = _WITNESS_GRACE
        while not self._is_witnessed(word) and patience > 0:
            await asyncio.sleep(_WITNESS_LOOK)
            patience -= _WITNESS_LOOK
        return self._is_witnessed(word)

    async def _holds_locked(self, epoch: str) -> bool:
        """Compare, and begin a new epoch in the same lock."""
        async with self._database.write() as db:
            if await self._is_witnessed_soon(db):
                # Another task may have begun a new epoch during the wait for the lock.
                return await db.scalar(select(FeedHead.epoch)) == epoch
            self._tell_after_commit(db, await self._begin(db, None))
        return False

    async def _begin(self, db: AsyncSession, instead_of: str | None) -> str | None:
        change = update(FeedHead).values(epoch=str(uuid.uuid4()), settled=False)
        if not self._database.is_sqlite:
            await notify_head(db)
            found = literal_column(POSTGRES_FOUND, Text)
            change = change.values(continuity=found)
        elif instead_of in (None, await db.scalar(select(FeedHead.continuity))):
            change = change.values(continuity=self._promise_word(db))
        if instead_of is not None:
            change = change.where(FeedHead.continuity == instead_of)
        return await db.scalar(change.returning(FeedHead.epoch))
