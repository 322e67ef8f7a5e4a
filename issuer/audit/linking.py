"""Links committed audit events into the chain, shortly after their commit.

An event is in `audit_unlinked` from its insertion on, whatever its id: a late commit is
linked late, and no event is lost. One process links at a time.
docs/decisions/0005-the-audit-chain-follows.md explains why this is not part of the
act's transaction.
"""

from __future__ import annotations

import logging
from typing import Final

from sqlalchemy import delete, func, insert, select
from sqlalchemy.ext.asyncio import AsyncSession

from issuer.audit.chain import START, Head, link, link_content
from issuer.audit.seals import Sealer
from issuer.foundation import Foundation
from issuer.storage.advisory_locks import AdvisoryLock, try_lock
from issuer.storage.tables.audit import (
    AuditCheckpoint,
    AuditEvent,
    AuditLink,
    AuditUnlinked,
)
from shared import log

_BATCH: Final = 500
#: Seconds between two log lines with the head.
_TELL_EVERY: Final = 600.0
_LOG = logging.getLogger(__name__)


class AuditLinker:
    """Links the waiting events.

    Args:
        base: gives the database, the elapsed clock and the metrics.
        sealer: seals each link.
    """

    def __init__(self, base: Foundation, sealer: Sealer) -> None:
        self._database = base.database
        self._sealer = sealer
        self._elapsed = base.elapsed
        self._on_waiting = base.metrics.audit_unlinked
        self._told_at: float | None = None

    async def link(self) -> int:
        """Link all waiting events and return their number.

        Returns:
            Fewer than the waiting events while another process links.

        Raises:
            UnavailableError: when the database is away.
        """
        # Checked first: taking SQLite's write lock for nothing would delay other
        # writers.
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
        """Return the end of the chain.

        Raises:
            UnavailableError: when the database is away.
        """
        async with self._database.read() as db:
            return await read_head(db)

    async def _link_batch(self) -> int:
        async with self._database.write() as db:
            # Another process is linking.
            if not await try_lock(self._database, db, AdvisoryLock.AUDIT_LINKING):
                return 0
            # A deleted event leaves its mark here, and `audit verify` reports it.
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


async def read_head(db: AsyncSession) -> Head:
    """Return the last link; without links, the newest checkpoint."""
    for table in (AuditLink, AuditCheckpoint):
        query = select(table.seq, table.digest).order_by(table.seq.desc()).limit(1)
        row = (await db.execute(query)).one_or_none()
        if row is not None:
            return Head(row.seq, bytes(row.digest))
    return START
