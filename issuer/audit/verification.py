"""Verifies the audit log: every row, its place in the chain, and its seals."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Collection
from dataclasses import dataclass
from typing import Any, Final, NamedTuple

from sqlalchemy import func, select
from sqlalchemy.ext.asyncio import AsyncSession

from issuer.audit.chain import (
    START,
    Head,
    checkpoint_content,
    link,
    link_content,
    row_content,
)
from issuer.audit.linking import read_head
from issuer.audit.seals import Sealer, SealError, UnknownSealKeyError
from issuer.storage.db import Database
from issuer.storage.tables.audit import (
    AuditCheckpoint,
    AuditEvent,
    AuditLink,
    AuditUnlinked,
)

_BATCH: Final = 1_000


class AuditBrokenError(Exception):
    """The audit log was changed; the message names the first row and the reason."""


class Verified(NamedTuple):
    """The result of a verification without faults.

    Attributes:
        start: the start of the chain: the end of the deleted part.
        head: the end of the chain.
        waiting: number of events that are not linked yet and so not verified.
    """

    start: Head
    head: Head
    waiting: int


@dataclass(frozen=True, slots=True)
class _Link:
    head: Head
    event_id: int
    seal: str
    event: AuditEvent | None


class AuditVerifier:
    """Verifies the whole chain.

    Args:
        database: has events and links.
        sealer: checks the seals.
        retired_keys: ids of sealing keys that have left the settings: rows that they
            sealed are checked by digests only.
    """

    def __init__(
        self,
        database: Database,
        sealer: Sealer,
        *,
        retired_keys: Collection[str] = (),
    ) -> None:
        self._database = database
        self._sealer = sealer
        self._retired_keys = frozenset(retired_keys)

    async def verify(
        self,
        expected: Head | None = None,
        on_progress: Callable[[int, int], None] = lambda _done, _all: None,
    ) -> Verified:
        """Return when no fault is found.

        Args:
            expected: an earlier head, which the chain must contain.
            on_progress: called with the number of checked links and of all links.

        Raises:
            AuditBrokenError: naming the first changed row.
            UnavailableError: when the database is away.
        """
        async with self._database.read() as db:
            start = await self._read_start(db)
            end = await read_head(db)
        head, is_sealed = start, False
        _require_expected(start, start, expected)
        async for found in self._read_links(start.seq, end.seq):
            is_sealed = self._check(head, found, is_sealed)
            head = found.head
            _require_expected(start, head, expected)
            if head.seq % _BATCH == 0 or head.seq == end.seq:
                on_progress(head.seq - start.seq, end.seq - start.seq)
        if head.seq < end.seq:
            raise AuditBrokenError(f"link {head.seq + 1} is missing")
        if expected is not None and head.seq < expected.seq:
            raise AuditBrokenError(
                f"the chain ends at {head.seq}: everything behind it up to "
                f"{expected.seq} is missing"
            )
        return Verified(start, head, await self._check_outside())

    async def _read_start(self, db: AsyncSession) -> Head:
        query = select(AuditCheckpoint).order_by(AuditCheckpoint.seq.desc()).limit(1)
        row = await db.scalar(query)
        if row is None:
            return START
        head = Head(row.seq, bytes(row.digest))
        try:
            self._sealer.check(row.seal, checkpoint_content(head, row.made_at))
        except SealError as error:
            self._tolerate(error, f"checkpoint {row.seq}")
        return head

    async def _read_links(self, after: int, to: int) -> AsyncIterator[_Link]:
        while after < to:
            async with self._database.read() as db:
                rows: list[Any] = list(
                    await db.execute(
                        select(AuditLink, AuditEvent)
                        .outerjoin(AuditEvent, AuditEvent.id == AuditLink.event_id)
                        .where(AuditLink.seq > after, AuditLink.seq <= to)
                        .order_by(AuditLink.seq)
                        .limit(_BATCH)
                    )
                )
            for row, event in rows:
                head = Head(row.seq, bytes(row.digest))
                yield _Link(head, row.event_id, row.seal, event)
            if not rows:
                return
            after = rows[-1][0].seq

    def _check(self, before: Head, found: _Link, is_sealed: bool) -> bool:
        """Check one link; return whether sealed events have begun."""
        seq, row = found.head.seq, found.event
        if seq != before.seq + 1:
            raise AuditBrokenError(f"link {before.seq + 1} is missing")
        name = f"event {found.event_id} (link {seq})"
        if row is None:
            raise AuditBrokenError(f"{name} was removed")
        if row.seal:
            self._check_event(row, name)
        elif is_sealed:
            # Older programs wrote no seals; none may follow a sealed event.
            raise AuditBrokenError(f"{name} has no seal: no issuer wrote it")
        if link(before, row) != found.head:
            raise AuditBrokenError(f"{name} is not what was linked here")
        try:
            self._sealer.check(found.seal, link_content(found.head))
        except SealError as error:
            self._tolerate(error, f"link {seq}")
        return is_sealed or bool(row.seal)

    def _check_event(self, row: AuditEvent, name: str) -> None:
        try:
            self._sealer.check_event(row.seal, row_content(row))
        except SealError as error:
            self._tolerate(error, name)

    def _tolerate(self, error: SealError, name: str) -> None:
        is_retired = (
            isinstance(error, UnknownSealKeyError)
            and error.key_id in self._retired_keys
        )
        if not is_retired:
            raise AuditBrokenError(f"{name}: {error}") from None

    async def _check_outside(self) -> int:
        """Check the events outside the chain; return the number of waiting events."""
        async with self._database.read() as db:
            stray = await db.scalar(
                select(AuditEvent.id)
                .outerjoin(AuditLink, AuditLink.event_id == AuditEvent.id)
                .outerjoin(AuditUnlinked, AuditUnlinked.event_id == AuditEvent.id)
                .where(AuditLink.seq.is_(None), AuditUnlinked.event_id.is_(None))
                .order_by(AuditEvent.id)
                .limit(1)
            )
            removed = await db.scalar(
                select(AuditUnlinked.event_id)
                .outerjoin(AuditEvent, AuditEvent.id == AuditUnlinked.event_id)
                .where(AuditEvent.id.is_(None))
                .order_by(AuditUnlinked.event_id)
                .limit(1)
            )
            copied = await db.scalar(
                select(func.max(AuditEvent.id))
                .where(AuditEvent.seal != "")
                .group_by(AuditEvent.seal)
                .having(func.count() > 1)
                .limit(1)
            )
            waiting = await db.scalar(select(func.count()).select_from(AuditUnlinked))
        if stray is not None:
            raise AuditBrokenError(f"event {stray} stands outside the chain")
        if removed is not None:
            raise AuditBrokenError(f"event {removed} was removed before it was linked")
        if copied is not None:
            raise AuditBrokenError(f"event {copied} is a copy of another")
        return waiting or 0


def _require_expected(start: Head, head: Head, expected: Head | None) -> None:
    if expected is None or expected.seq > head.seq:
        return
    if expected.seq < start.seq:
        raise AuditBrokenError(
            f"link {expected.seq} was deleted by retention, up to {start.seq}: verify "
            "against a head noted later"
        )
    if expected.seq == head.seq and expected.digest != head.digest:
        raise AuditBrokenError(f"link {head.seq} is not the one that was noted")
