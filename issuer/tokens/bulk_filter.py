"""Living sessions by what they have in common, found page by page."""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import dataclass, fields
from ipaddress import IPv4Network, IPv6Network, ip_address, ip_network
from typing import Final

from sqlalchemy import ColumnElement, select

from issuer.db import Database
from issuer.errors import FieldProblem, InvalidRequestError
from issuer.models import Session, UserRole
from shared.claims import CLOCK_ALLOWANCE, MAX_LEEWAY

#: Sessions read at once.
PAGE: Final = 5_000


@dataclass(frozen=True, slots=True)
class SessionFilter:
    """Which living sessions: those to which everything that is given applies.

    Attributes:
        role: of users who hold this role now.
        client_id: begun through this client.
        started_before: begun before this moment, Unix seconds.
        started_since: begun at this moment or later, Unix seconds.
        address: begun from an address of this network.
    """

    role: str | None = None
    client_id: str | None = None
    started_before: int | None = None
    started_since: int | None = None
    address: IPv4Network | IPv6Network | None = None

    def __post_init__(self) -> None:
        if all(getattr(self, field.name) is None for field in fields(self)):
            # "Log everyone out" is one row: `revoke --kid`.
            raise InvalidRequestError(
                problems=[FieldProblem("filter", "must name at least one condition")]
            )

    def describe(self) -> str:
        """Return the filter in one line, for the record."""
        given = ((field.name, getattr(self, field.name)) for field in fields(self))
        return " ".join(f"{name}={value}" for name, value in given if value is not None)

    async def find_sids(
        self, database: Database, now: int, page: int = PAGE
    ) -> AsyncIterator[list[str]]:
        """Yield the sids, in pages and in their own order.

        Sessions that begin meanwhile may be missed: bound them by `started_before`.

        Args:
            database: where sessions are kept.
            now: Unix seconds; sessions whose last token has expired at every verifier
                are left out.
            page: sessions looked at in one transaction.

        Raises:
            UnavailableError: when the database is away.
        """
        last = ""
        while True:
            query = (
                select(Session.sid, Session.address)
                .where(Session.sid > last, *self._conditions(now))
                .order_by(Session.sid)
                .limit(page)
            )
            async with database.read() as db:
                rows = (await db.execute(query)).all()
            if not rows:
                return
            last = rows[-1].sid
            yield [row.sid for row in rows if self._is_from(row.address)]

    def _conditions(self, now: int) -> list[ColumnElement[bool]]:
        found: list[ColumnElement[bool]] = [
            Session.ended_at.is_(None),
            # Verifiers allow leeway, and clocks differ.
            Session.expires_at > now - MAX_LEEWAY - CLOCK_ALLOWANCE,
        ]
        if self.role is not None:
            holders = select(UserRole.user_id).where(UserRole.role_name == self.role)
            found.append(Session.user_id.in_(holders))
        if self.client_id is not None:
            found.append(Session.client_id == self.client_id)
        if self.started_before is not None:
            found.append(Session.created_at < self.started_before)
        if self.started_since is not None:
            found.append(Session.created_at >= self.started_since)
        return found

    def _is_from(self, address: str) -> bool:
        if self.address is None:
            return True
        try:
            return ip_address(address) in self.address
        except ValueError:
            return False  # a unix socket's peer has none


def read_network(text: str) -> IPv4Network | IPv6Network:
    """Return a network such as `192.0.2.0/24`, or a single address.

    Raises:
        InvalidRequestError: when it is neither.
    """
    try:
        return ip_network(text)
    except ValueError:
        rule = "must be an address or a network such as 192.0.2.0/24"
        raise InvalidRequestError(problems=[FieldProblem("address", rule)]) from None
