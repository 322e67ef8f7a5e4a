"""Links committed audit events into the chain, a moment after their commit.

An event waits in `audit_unlinked` from the moment it is written, whatever its id: one
that is committed late is linked late, and none is lost. Linkers of all processes go one
after the other. Why not within the act's own transaction:
docs/decisions/0005-the-audit-chain-follows.md.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Final

from sqlalchemy import delete, func, insert, select, text
from sqlalchemy.ext.asyncio import AsyncSession

from issuer.audit.chain import START, Head, link, link_content
from issuer.audit.seals import Sealer
from issuer.clock import ElapsedClock
from issuer.storage.db import Database
from issuer.storage.tables.audit import (
    AuditCheckpoint,
    AuditEvent,
    AuditLink,
    AuditUnlinked,
)
from shared import log

_BATCH: Final = 500
_ADVISORY_LOCK: Final = 0x6761_7465 + 2
#: Seconds between two lines that tell the head to whoever keeps the logs.
_TELL_EVERY: Final = 600.0
_LOG = logging.getLogger(__name__)


class AuditLinker:
    """Links what waits.

    Args:
        database: where events and links are.
        sealer: proves that a link is ours.
        elapsed: gives seconds, for how often the head is told in the log.
        on_waiting: told how many events waited at each look.
    """

    def __init__(
        self,
        database: Database,
        sealer: Sealer,
        *,
        elapsed: ElapsedClock,
        on_waiting: Callable[[int], None] = lambda _: None,
    ) -> None:
        self._database = database
        self._sealer = sealer
        self._elapsed = elapsed
        self._on_waiting = on_waiting
        self._told_at: float | None = None

    async def link(self) -> int:
        """Link everything that waits and return how much that was.

        Returns:
            Less than what waits when another process is linking at the moment.

        Raises:
            UnavailableError: when the database is away.
        """
        # Looked at first: taking SQLite's write lock for nothing would cost the others.
        async with self._database.read() as db:
            waiting = await db.scalar(select(func.count()).select_from(AuditUnlinked))
        self._on_waiting(waiting or 0)
        linked = 0
        while waiting:
            count = await self._link_batch()
            linked += count
            if count < _BATCH:
                break
        return linked

    async def head(self) -> Head:
        """Return how far the chain has come.

        Raises:
            UnavailableError: when the database is away.
        """
        async with self._database.read() as db:
            return await read_head(db)

    async def _link_batch(self) -> int:
        async with self._database.write() as db:
            if not await _lock(db, self._database):
                return 0
            # An event that is gone leaves its mark waiting, for `audit verify` to name.
            rows = (
                await db.scalars(
                    select(AuditEvent)
                    .join(AuditUnlinked, AuditUnlinked.event_id == AuditEvent.id)
                    .order_by(AuditEvent.id)
                    .limit(_BATCH)
                )
            ).all()
            if not rows:
                return 0
            head = await read_head(db)
            links = []
            for row in rows:
                head = link(head, row)
                links.append(
                    {
                        "seq": head.seq,
                        "event_id": row.id,
                        "digest": head.digest,
                        "seal": self._sealer.seal(link_content(head)),
                    }
                )
            await db.execute(insert(AuditLink), links)
            linked = [row.id for row in rows]
            await db.execute(
                delete(AuditUnlinked).where(AuditUnlinked.event_id.in_(linked))
            )
        self._tell(head)
        return len(rows)

    def _tell(self, head: Head) -> None:
        now = self._elapsed()
        if self._told_at is None or now - self._told_at >= _TELL_EVERY:
            self._told_at = now
            log.event(_LOG, logging.INFO, "audit.head", head=str(head))


async def _lock(db: AsyncSession, database: Database) -> bool:
    """Whether nobody else links now; BEGIN IMMEDIATE sees to that on SQLite."""
    if database.is_sqlite:
        return True
    statement = text("SELECT pg_try_advisory_xact_lock(:id)")
    return bool(await db.scalar(statement, {"id": _ADVISORY_LOCK}))


async def read_head(db: AsyncSession) -> Head:
    """Return the last link; before the first, what the newest checkpoint tells."""
    for table in (AuditLink, AuditCheckpoint):
        query = select(table.seq, table.digest).order_by(table.seq.desc()).limit(1)
        row = (await db.execute(query)).one_or_none()
        if row is not None:
            return Head(row.seq, bytes(row.digest))
    return START
