"""Reads the audit log, newest first."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from sqlalchemy import ColumnElement, select

from issuer.storage.db import Database
from issuer.storage.pages import KeysetOrder, cut_page
from issuer.storage.tables.audit import AuditEvent

_NEWEST_FIRST: Final = KeysetOrder((AuditEvent.id,), is_descending=True)


@dataclass(frozen=True, slots=True)
class AuditFilter:
    """Conditions on events; all must apply. Times are Unix seconds.

    Attributes:
        event: its name.
        actor: the subject that acted.
        subject: the id that it concerns.
        correlation_id: of its request.
        since: at this time or later.
        until: before this time.
    """

    event: str | None = None
    actor: str | None = None
    subject: str | None = None
    correlation_id: str | None = None
    since: int | None = None
    until: int | None = None

    def conditions(self) -> list[ColumnElement[bool]]:
        """Return the filter in SQL."""
        exact = {
            AuditEvent.event: self.event,
            AuditEvent.actor: self.actor,
            AuditEvent.subject: self.subject,
            AuditEvent.correlation_id: self.correlation_id,
        }
        found = [c == value for c, value in exact.items() if value is not None]
        if self.since is not None:
            found.append(AuditEvent.at >= self.since)
        if self.until is not None:
            found.append(AuditEvent.at < self.until)
        return found


@dataclass(frozen=True, slots=True)
class AuditPage:
    """Events, and the `before` of the next page; None after the last."""

    events: Sequence[AuditEvent]
    next_before: int | None


class AuditReader:
    """Reads pages.

    Args:
        database: has the events.
    """

    def __init__(self, database: Database) -> None:
        self._database = database

    async def read_page(
        self, which: AuditFilter, limit: int, before: int | None
    ) -> AuditPage:
        """Return one page, newest first.

        Args:
            which: the events.
            limit: events of the page at most.
            before: `next_before` of the page before; None: the first page.

        Raises:
            UnavailableError: when the database is away.
        """
        query = _NEWEST_FIRST.sort(
            select(AuditEvent).where(*which.conditions()),
            limit + 1,
            None if before is None else (before,),
        )
        async with self._database.read() as db:
            found = (await db.scalars(query)).all()
        events, last = cut_page(found, limit)
        return AuditPage(events, None if last is None else last.id)
