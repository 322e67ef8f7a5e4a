"""Reads the audit log, newest first."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Final

from sqlalchemy import ColumnElement, select

from issuer.storage.db import Database
from issuer.storage.pages import KeysetOrder, Page, Pager
from issuer.storage.tables.audit import AuditEvent

_CURSOR: Final = re.compile(r"[0-9]{1,18}")


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


class AuditReader:
    """Reads pages.

    Args:
        database: has the events.
    """

    def __init__(self, database: Database) -> None:
        self._database = database

    async def read_page(
        self, which: AuditFilter, limit: int, cursor: str | None
    ) -> Page[AuditEvent]:
        """Return one page, newest first.

        Args:
            which: the events.
            limit: events of the page at most.
            cursor: `next_cursor` of the page before; None: the first page.

        Raises:
            InvalidRequestError: for a cursor that is not from such a page.
            UnavailableError: when the database is away.
        """
        query = select(AuditEvent).where(*which.conditions())
        page_query = NEWEST_FIRST.build_query(query, limit, cursor)
        async with self._database.read() as db:
            return NEWEST_FIRST.cut((await db.scalars(page_query)).all(), limit)


def _write_cursor(last: AuditEvent) -> str:
    return str(last.id)


def _read_cursor(text: str) -> tuple[int]:
    if not _CURSOR.fullmatch(text):
        raise ValueError
    return (int(text),)


#: Pages of events, newest first.
NEWEST_FIRST: Final = Pager(
    KeysetOrder((AuditEvent.id,), is_descending=True), _write_cursor, _read_cursor
)
