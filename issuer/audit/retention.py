"""Deletes old audit events, and leaves a sealed checkpoint that says up to where."""

from __future__ import annotations

from typing import Final

from sqlalchemy import delete, func, insert, select, text
from sqlalchemy.ext.asyncio import AsyncSession

from issuer.acts import Act, AuditWriter, Caller
from issuer.audit.audit_tables import AuditCheckpoint, AuditLink
from issuer.audit.chain import Head, checkpoint_content
from issuer.audit.seals import Sealer
from issuer.clock import Clock, seconds
from issuer.db import Database
from issuer.lifetimes import lies_ahead
from issuer.models import AuditEvent

_BATCH: Final = 5_000
_ADVISORY_LOCK: Final = 0x6761_7465 + 3


class AuditRetention:
    """The one way to delete audit events: the oldest, up to a place in the chain.

    Args:
        database: where they are.
        sealer: seals the checkpoint.
        clock: gives the time in milliseconds.
        audit: records the deletion.
    """

    def __init__(
        self, database: Database, sealer: Sealer, *, clock: Clock, audit: AuditWriter
    ) -> None:
        self._database = database
        self._sealer = sealer
        self._clock = clock
        self._audit = audit

    async def delete_before(self, before: int, *, actor: str) -> Head | None:
        """Delete the events that are older, from the begin of the chain on.

        In short transactions, each with a checkpoint of its own; broken off, what was
        deleted stays told.

        Args:
            before: Unix seconds. The first event that is not older ends it.
            actor: who wishes it.

        Returns:
            Where the chain begins now; None when nothing was old enough.

        Raises:
            UnavailableError: when the database is away.
        """
        reached: Head | None = None
        while True:
            async with self._database.write() as db:
                head = await self._delete_batch(db, before, actor)
            if head is None:
                return reached
            reached = head

    async def _delete_batch(
        self, db: AsyncSession, before: int, actor: str
    ) -> Head | None:
        if not self._database.is_sqlite:
            lock = text("SELECT pg_advisory_xact_lock(:id)")
            await db.execute(lock, {"id": _ADVISORY_LOCK})
        head = await _find_last(db, before, seconds(self._clock))
        if head is None:
            return None
        made_at = seconds(self._clock)
        seal = self._sealer.seal(checkpoint_content(head, made_at))
        # First: the triggers let only that be deleted which a checkpoint covers.
        await db.execute(
            insert(AuditCheckpoint).values(
                seq=head.seq, digest=head.digest, made_at=made_at, seal=seal
            )
        )
        covered = select(AuditLink.event_id).where(AuditLink.seq <= head.seq)
        await db.execute(delete(AuditEvent).where(AuditEvent.id.in_(covered)))
        await db.execute(delete(AuditLink).where(AuditLink.seq <= head.seq))
        act = Act("audit.pruned", actor, "audit", {"before": before, "up_to": head.seq})
        await self._audit(db, act, Caller())
        return head


async def _find_last(db: AsyncSession, before: int, now: int) -> Head | None:
    """Return the last link of the batch to delete; None when there is none.

    Events in the future were dated while the clock was ahead. They end nothing, and go
    with the events around them: past the last one that is old enough they stay.
    """
    linked = select(func.min(AuditLink.seq)).join(
        AuditEvent, AuditEvent.id == AuditLink.event_id
    )
    first_kept = await db.scalar(
        linked.where(AuditEvent.at >= before, ~lies_ahead(AuditEvent.at, now))
    )
    last_old = await db.scalar(
        select(func.max(AuditLink.seq))
        .join(AuditEvent, AuditEvent.id == AuditLink.event_id)
        .where(AuditEvent.at < before)
    )
    first = await db.scalar(select(func.min(AuditLink.seq)))
    if first is None or last_old is None:
        return None
    query = select(AuditLink.seq, AuditLink.digest).where(
        AuditLink.seq < first + _BATCH, AuditLink.seq <= last_old
    )
    if first_kept is not None:
        query = query.where(AuditLink.seq < first_kept)
    row = (
        await db.execute(query.order_by(AuditLink.seq.desc()).limit(1))
    ).one_or_none()
    return None if row is None else Head(row.seq, bytes(row.digest))
