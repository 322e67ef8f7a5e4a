"""Deletes old audit events, and leaves a sealed checkpoint in their place."""

from __future__ import annotations

from typing import Final

from sqlalchemy import delete, insert, select
from sqlalchemy.ext.asyncio import AsyncSession

from issuer.acts import Act, Caller
from issuer.audit.chain import Head, checkpoint_content
from issuer.audit.seals import Sealer
from issuer.clock import seconds
from issuer.foundation import Foundation
from issuer.storage.advisory_locks import AdvisoryLock, take_lock
from issuer.storage.lifetimes import is_future
from issuer.storage.tables.audit import AuditCheckpoint, AuditEvent, AuditLink

_BATCH: Final = 5_000
#: Links that are read to find whether the first event is due.
_FIRST: Final = 100
#: Seconds by which events may outlive their time: each deletion is recorded and leaves
#: a checkpoint, so it runs once a day at most.
SLACK: Final = 86_400
_SYSTEM: Final = "system"


class AuditRetention:
    """The one way to delete audit events: the oldest, up to a place in the chain.

    Args:
        base: gives the database, the clock, the audit, the time to prune by and the
            settings.
        sealer: seals the checkpoint.
    """

    def __init__(self, base: Foundation, sealer: Sealer) -> None:
        self._database = base.database
        self._sealer = sealer
        self._clock = base.clock
        self._audit = base.audit
        self._prune_time = base.prune_time
        self._max_age = base.settings.audit_retention

    async def keep(self) -> Head | None:
        """Delete events past their time with `delete_before`, at most once a day.

        The pruning time ignores jumps of the clock: a deletion cannot be undone.

        Raises:
            UnavailableError: when the database is away.
        """
        now = self._prune_time()
        if not self._max_age:
            return None
        # The start of the chain, not the least date: an event in the middle of the
        # chain may be dated by a clock that was behind (R53).
        due = now - self._max_age - SLACK + 1
        async with self._database.read() as db:
            first = await _find_last(db, due, seconds(self._clock), batch=_FIRST)
        if first is None:
            return None
        return await self.delete_before(now - self._max_age, actor=_SYSTEM)

    async def delete_before(self, before: int, *, actor: str) -> Head | None:
        """Delete older events, from the start of the chain.

        It runs in short transactions, each with its checkpoint; after an interruption
        the log is consistent.

        Args:
            before: Unix seconds. Deleting stops at the first event that is not older.
            actor: subject that requested it.

        Returns:
            The new start of the chain; None when no event was old enough.

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
        await take_lock(self._database, db, AdvisoryLock.AUDIT_RETENTION)
        head = await _find_last(db, before, seconds(self._clock))
        if head is None:
            return None
        made_at = seconds(self._clock)
        seal = self._sealer.seal(checkpoint_content(head, made_at))
        # First: the triggers allow deletions only up to a checkpoint.
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


async def _find_last(
    db: AsyncSession, before: int, now: int, *, batch: int = _BATCH
) -> Head | None:
    """Return the last link of the batch to delete; None when there is none.

    Events in the future were dated while the clock was ahead. They do not stop the
    deletion and are deleted with the events around them; behind the last event that is
    old enough they stay.
    """
    after, last = 0, None
    while True:
        # From the start of the chain, in batches: it may be long.
        rows = (
            await db.execute(
                select(AuditLink.seq, AuditLink.digest, AuditEvent.at)
                .outerjoin(AuditEvent, AuditEvent.id == AuditLink.event_id)
                .where(AuditLink.seq > after)
                .order_by(AuditLink.seq)
                .limit(batch)
            )
        ).all()
        for row in rows:
            is_dated = row.at is not None and not is_future(row.at, now)
            if is_dated and row.at >= before:
                return last
            if is_dated:
                last = Head(row.seq, bytes(row.digest))
        if last is not None or len(rows) < batch:
            return last
        after = rows[-1].seq
