"""Finds living sessions and personal keys by a filter, page by page.

A personal key still gets tokens after its session has ended. So the filter also finds
keys: otherwise a key made at the given place, time or client would stay alive (R49).
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass, fields
from ipaddress import IPv4Network, IPv6Network, ip_address, ip_network
from typing import Final, TypeAlias

from sqlalchemy import ColumnElement, Select, select
from sqlalchemy.orm import InstrumentedAttribute

from issuer.errors import InvalidRequestError
from issuer.http.authorization.principals import PERSONAL_KEY_CLIENT_ID
from issuer.sessions.open_sessions import FIRST_PARTY_CLIENT_ID
from issuer.storage.db import Database
from issuer.storage.pages import KeysetOrder
from issuer.storage.tables.personal_keys import PersonalKey
from issuer.storage.tables.roles import UserRole
from issuer.storage.tables.sessions import Session
from shared.claims import CLOCK_ALLOWANCE, MAX_LEEWAY

#: Sessions or keys read in one transaction.
PAGE: Final = 5_000
#: A key is made through the first-party client; its tokens name the other client.
_CLIENTS_OF_KEYS: Final = (None, FIRST_PARTY_CLIENT_ID, PERSONAL_KEY_CLIENT_ID)
#: Selects `sid` and `address`, and the column to page by.
_Query: TypeAlias = tuple[Select[str, str], InstrumentedAttribute[str]]


@dataclass(frozen=True, slots=True)
class SessionFilter:
    """A filter of living sessions and keys; all given conditions must apply.

    Attributes:
        role: their users hold this role now.
        client_id: they began through this client. A personal key is made through
            `gatehouse`, and its tokens name `gatehouse-key`; both find it.
        started_before: they began before this time, Unix seconds.
        started_since: they began at this time or later, Unix seconds.
        address: they began from an address in this network.
    """

    role: str | None = None
    client_id: str | None = None
    started_before: int | None = None
    started_since: int | None = None
    address: IPv4Network | IPv6Network | None = None

    def __post_init__(self) -> None:
        if all(getattr(self, field.name) is None for field in fields(self)):
            # "Log everyone out" is one row: `revoke --kid`.
            raise InvalidRequestError.of_field(
                "filter", "must name at least one condition"
            )

    def describe(self) -> str:
        """Return the filter as one line, for the audit."""
        given = ((field.name, getattr(self, field.name)) for field in fields(self))
        return " ".join(f"{name}={value}" for name, value in given if value is not None)

    async def find_sids(
        self, database: Database, now: int, page: int = PAGE
    ) -> AsyncIterator[list[str]]:
        """Yield the sids in pages: first those of sessions, then the ids of keys.

        It may miss sessions and keys that begin meanwhile; `started_before` excludes
        them.

        Args:
            database: has the sessions and keys.
            now: Unix seconds; sessions and keys whose last token has expired at every
                verifier are left out.
            page: the most rows read in one transaction.

        Raises:
            UnavailableError: when the database is away.
        """
        for query, sid in self._build_queries(now):
            last = ""
            while True:
                async with database.read() as db:
                    found = KeysetOrder((sid,)).sort(query, page, (last,))
                    rows = (await db.execute(found)).all()
                if not rows:
                    break
                last = rows[-1].sid
                yield [row.sid for row in rows if self._is_from(row.address)]

    def _build_queries(self, now: int) -> Iterator[_Query]:
        # Verifiers allow leeway, and clocks differ.
        since = now - MAX_LEEWAY - CLOCK_ALLOWANCE
        sessions = select(Session.sid, Session.address).where(
            Session.ended_at.is_(None), *self._conditions(Session, since)
        )
        if self.client_id is not None:
            sessions = sessions.where(Session.client_id == self.client_id)
        yield sessions, Session.sid
        if self.client_id in _CLIENTS_OF_KEYS:
            keys = select(PersonalKey.id.label("sid"), PersonalKey.address).where(
                PersonalKey.revoked_at.is_(None), *self._conditions(PersonalKey, since)
            )
            yield keys, PersonalKey.id

    def _conditions(
        self, table: type[Session] | type[PersonalKey], since: int
    ) -> Iterator[ColumnElement[bool]]:
        yield table.expires_at > since
        if self.role is not None:
            holders = select(UserRole.user_id).where(UserRole.role_name == self.role)
            yield table.user_id.in_(holders)
        if self.started_before is not None:
            yield table.created_at < self.started_before
        if self.started_since is not None:
            yield table.created_at >= self.started_since

    def _is_from(self, address: str) -> bool:
        if self.address is None:
            return True
        try:
            return ip_address(address) in self.address
        except ValueError:
            return False  # A peer of a unix socket has no address.


def read_network(text: str) -> IPv4Network | IPv6Network:
    """Return a network such as `192.0.2.0/24`, or a single address.

    Raises:
        InvalidRequestError: when it is neither.
    """
    try:
        return ip_network(text)
    except ValueError:
        rule = "must be an address or a network such as 192.0.2.0/24"
        raise InvalidRequestError.of_field("address", rule) from None
