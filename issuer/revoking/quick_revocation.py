"""Revokes single access tokens on PostgreSQL: many in one statement.

All revocations wait for the lock on the feed's counter row. In a transaction of several
statements it stays locked while this process, which may be busy, receives one answer
and sends the next statement; here only while the database works. Revocations that
arrive while a statement runs share the next one; none waits for others.

A single statement is its own transaction, committed before its row arrives: entries and
audit events are committed together.

SQLite has no data-modifying WITH clause, and further rows of other parts are not in
this statement: in both cases it does nothing and returns None.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Final, NamedTuple

import orjson
from sqlalchemy import TextClause, text

from issuer.acts import Act, Caller
from issuer.audit.log import AuditLog
from issuer.feed.feed import Position, Revocation, RevocationFeed
from issuer.feed.wake_ups import HEAD_CHANNEL
from issuer.storage.database_attempts import note_commit
from issuer.storage.db import Database

#: Revocations in one statement at most.
_MOST: Final = 200
_REVOKE: Final[TextClause] = text(f"""
    WITH given AS (
        SELECT * FROM jsonb_to_recordset(CAST(:given AS jsonb)) AS g (
            number bigint, kind text, key text, minimum_generation bigint,
            prune_at bigint, at bigint, event text, actor text, subject text,
            address text, correlation_id text, facts text, seal text
        )
    ), head AS (
        UPDATE feed_head SET seq = seq + :count WHERE id = 1 RETURNING epoch, seq
    ), entries AS (
        INSERT INTO feed_entries (seq, kind, key, minimum_generation, prune_at)
        SELECT head.seq - :count + number, kind, key, minimum_generation, prune_at
        FROM head, given
    ), events AS (
        INSERT INTO audit_events (
            at, event, actor, subject, address, correlation_id, facts, seal
        )
        SELECT at, event, actor, subject, address, correlation_id, facts, seal
        FROM given ORDER BY number
    )
    SELECT epoch, seq, pg_notify('{HEAD_CHANNEL}', CAST(seq AS text)) FROM head
    """)  # noqa: S608


class _Waiting(NamedTuple):
    revocation: Revocation
    event: dict[str, str | int]
    done: asyncio.Future[Position]


class QuickRevocation:
    """Makes single revocations; concurrent ones share a statement.

    Args:
        database: has the feed and the audit log.
        feed: wakes waiting requests.
        log: makes the audit log's row.
    """

    def __init__(self, database: Database, feed: RevocationFeed, log: AuditLog) -> None:
        self._database = database
        self._feed = feed
        self._log = log
        self._queue: list[_Waiting] = []
        self._writing: asyncio.Task[None] | None = None

    async def revoke(
        self, revocation: Revocation, act: Act, caller: Caller
    ) -> Position | None:
        """Revoke, commit, and return the position; None when nothing was done.

        Raises:
            UnavailableError: when the database is away.
        """
        if self._database.is_sqlite or self._feed.has_companions:
            return None
        event = self._log.describe_event(act, caller)
        done: asyncio.Future[Position] = asyncio.get_running_loop().create_future()
        self._queue.append(_Waiting(revocation, event, done))
        if self._writing is None:
            self._writing = asyncio.create_task(self._write_all())
        position = await done
        # Another request's task may have written it.
        note_commit()
        return position

    async def _write_all(self) -> None:
        try:
            while self._queue:
                batch, self._queue = self._queue[:_MOST], self._queue[_MOST:]
                await self._write(batch)
        finally:
            self._writing = None

    async def _write(self, batch: Sequence[_Waiting]) -> None:
        given = [
            {**waiting.revocation._asdict(), **waiting.event, "number": number}
            for number, waiting in enumerate(batch, 1)
        ]
        values = {"count": len(batch), "given": orjson.dumps(given).decode()}
        try:
            async with self._database.statement() as connection:
                row = (await connection.execute(_REVOKE, values)).one()
        except Exception as error:
            for waiting in batch:
                if not waiting.done.done():
                    waiting.done.set_exception(error)
            return
        self._feed.tell_appended(tuple(w.revocation for w in batch), row.seq)
        first = row.seq - len(batch) + 1
        for position, waiting in enumerate(batch, first):
            if not waiting.done.done():  # otherwise its caller was cancelled
                waiting.done.set_result(Position(row.epoch, position))
