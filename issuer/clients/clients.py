"""Clients: programs that authenticate by themselves, managed by administrators.

Every change that takes rights from a client raises its generation and publishes it in
the same transaction: a token minted from earlier rows is refused.
"""

from __future__ import annotations

import uuid
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, NamedTuple

from sqlalchemy import delete, select
from sqlalchemy.ext.asyncio import AsyncSession

from issuer.accounts.visible_text import is_visible_text
from issuer.acts import Act, Caller
from issuer.clients.audiences import format_audiences
from issuer.clients.client_rows import (
    OLDEST_FIRST,
    ClientView,
    ExpectClient,
    LockedClient,
    build_views,
    insert_client,
    insert_secret,
    lock_client,
    update_client,
)
from issuer.clock import seconds
from issuer.errors import (
    ConflictError,
    InvalidRequestError,
    NotFoundError,
)
from issuer.feed.feed import Position, Revocation, RevocationFeed
from issuer.foundation import Foundation
from issuer.http.authorization.scopes import format_scope, read_scopes
from issuer.storage.pages import Page
from issuer.storage.tables.clients import Client, ClientSecret
from issuer.storage.tables.feed import FeedEntryRow
from issuer.tokens.access import last_expiry
from shared.feed import EntryKind

#: One in use and one that takes its place.
MAX_SECRETS: Final = 2
MAX_PAGE: Final = 100
_MAX_NAME_CHARS: Final = 200


class NewClient(NamedTuple):
    """A new client. The secret is shown only once; the database keeps its digest."""

    client_id: str
    secret: str


class NewSecret(NamedTuple):
    """A new secret, shown only once, and the number for its removal."""

    number: int
    secret: str


@dataclass(frozen=True, slots=True)
class ClientChange:
    """A change of a client; None: no change."""

    name: str | None = None
    scopes: Sequence[str] | None = None
    audiences: Sequence[str] | None = None


class Clients:
    """Makes, shows, changes and ends clients.

    In every method `expect` may raise `PreconditionFailedError`, and then nothing
    changes; `actor` is the changer, `caller` the origin of the request.

    Args:
        base: gives the database, the clock, the audit and the settings.
        feed: carries revocations to the verifiers.
        on_changed: called after the commit with the id of a changed client.
    """

    def __init__(
        self,
        base: Foundation,
        feed: RevocationFeed,
        *,
        on_changed: Callable[[str], None],
    ) -> None:
        self._database = base.database
        self._audience = base.settings.audience
        self._feed = feed
        self._clock = base.clock
        self._audit = base.audit
        self._on_changed = on_changed

    async def create(
        self,
        name: str,
        scopes: Iterable[str],
        audiences: Iterable[str] = (),
        *,
        actor: str,
        caller: Caller,
    ) -> NewClient:
        """Make a client and return its id and secret.

        Args:
            name: for people, 1..200 characters.
            scopes: that it may request.
            audiences: of its tokens; if empty, the issuer's own.
            actor: subject of the maker.
            caller: origin of the request.

        Raises:
            InvalidRequestError: when the name or an audience breaks a rule.
            InvalidScopeError: when a scope is malformed.
            UnavailableError: when the database is away.
        """
        _check_name(name)
        scope, audience = format_scope(read_scopes(scopes)), format_audiences(audiences)
        # With the prefix it can never be a user's id (RFC 9068, section 5).
        client_id = f"gc_{uuid.uuid4().hex}"
        now = seconds(self._clock)
        async with self._database.write() as db:
            await insert_client(db, client_id, name, scope, audience, now)
            secret = await insert_secret(db, client_id, 1, now)
            facts: dict[str, str | int] = {"scope": scope, "audiences": audience}
            await self._audit(
                db, Act("client.created", actor, client_id, facts), caller
            )
        return NewClient(client_id, secret)

    async def get(self, client_id: str) -> ClientView:
        """Return a client.

        Raises:
            NotFoundError: when there is none with this id.
            UnavailableError: when the database is away.
        """
        async with self._database.read() as db:
            client = await db.get(Client, client_id)
            if client is None:
                raise NotFoundError
            return (await build_views(db, [client]))[0]

    async def list_page(self, limit: int, cursor: str | None) -> Page[ClientView]:
        """Return one page of clients, oldest first.

        Args:
            limit: how many at most.
            cursor: `next_cursor` of the page before; None: the first page.

        Raises:
            InvalidRequestError: for a cursor that is not from such a page.
            UnavailableError: when the database is away.
        """
        query = OLDEST_FIRST.build_query(select(Client), limit, cursor)
        async with self._database.read() as db:
            page = OLDEST_FIRST.cut((await db.scalars(query)).all(), limit)
            return Page(await build_views(db, page.rows), page.next_cursor)

    async def change(
        self,
        client_id: str,
        change: ClientChange,
        expect: ExpectClient,
        *,
        actor: str,
        caller: Caller,
    ) -> Position | None:
        """Change a client; removing a scope or an audience revokes its tokens.

        Args:
            client_id: the client's id.
            change: the new values.
            expect: raises when the client is not in the state that the changer saw.
            actor: subject of the changer.
            caller: origin of the request.

        Returns:
            The feed position of the revocation; None when nothing was removed.

        Raises:
            InvalidRequestError: when the name or an audience breaks a rule.
            InvalidScopeError: when a scope is malformed.
            NotFoundError: when there is no such client.
            PreconditionFailedError: from `expect`.
            UnavailableError: when the database is away.
        """
        async with self._database.write() as db:
            client = await lock_client(db, client_id, expect)
            values = _read_change(change)
            if all(getattr(client, name) == value for name, value in values.items()):
                return None
            act = Act("client.changed", actor, client_id, values)
            await self._audit(db, act, caller)
            if self._is_narrowing(client, values):
                return await self._end_tokens(db, client, values)
            await update_client(db, client, values)
        self._on_changed(client_id)
        return None

    async def disable(
        self, client_id: str, expect: ExpectClient, *, actor: str, caller: Caller
    ) -> Position:
        """Disable a client, and revoke its tokens.

        A repeated call writes nothing.

        Raises:
            NotFoundError: when there is no such client.
            PreconditionFailedError: from `expect`.
            UnavailableError: when the database is away.
        """
        async with self._database.write() as db:
            client = await lock_client(db, client_id, expect)
            if not await _is_done(db, client):
                act = Act("client.disabled", actor, client_id)
                await self._audit(db, act, caller)
                values = {"disabled_at": seconds(self._clock)}
                return await self._end_tokens(db, client, values)
        return await self._feed.head_position()

    async def enable(
        self, client_id: str, expect: ExpectClient, *, actor: str, caller: Caller
    ) -> None:
        """Enable a client; its earlier tokens stay revoked.

        Raises:
            NotFoundError: when there is no such client.
            PreconditionFailedError: from `expect`.
            UnavailableError: when the database is away.
        """
        async with self._database.write() as db:
            client = await lock_client(db, client_id, expect)
            if client.disabled_at is None:
                return
            await self._audit(db, Act("client.enabled", actor, client_id), caller)
            await update_client(db, client, {"disabled_at": None})
        self._on_changed(client_id)

    async def delete(
        self, client_id: str, expect: ExpectClient, *, actor: str, caller: Caller
    ) -> Position:
        """Delete a client permanently, and revoke its tokens.

        Raises:
            NotFoundError: when there is no such client.
            PreconditionFailedError: from `expect`.
            UnavailableError: when the database is away.
        """
        async with self._database.write() as db:
            client = await lock_client(db, client_id, expect)
            await db.execute(delete(Client).where(Client.id == client_id))
            act = Act("client.deleted", actor, client_id, {"name": client.name})
            await self._audit(db, act, caller)
            return await self._publish(db, client_id, client.generation + 1)

    async def add_secret(
        self, client_id: str, *, actor: str, caller: Caller
    ) -> NewSecret:
        """Give a client another secret; the present one is valid until it is removed.

        Raises:
            NotFoundError: when there is no such client.
            ConflictError: when it has two already.
            UnavailableError: when the database is away.
        """
        async with self._database.write() as db:
            client = await lock_client(db, client_id)
            living = await db.scalars(
                select(ClientSecret.number).where(ClientSecret.client_id == client_id)
            )
            if len(living.all()) >= MAX_SECRETS:
                raise ConflictError("Two secrets live: remove one first.")
            number = client.secrets_made + 1
            await update_client(db, client, {"secrets_made": number})
            secret = await insert_secret(db, client_id, number, seconds(self._clock))
            act = Act("client.secret_added", actor, client_id, {"number": number})
            await self._audit(db, act, caller)
        self._on_changed(client_id)
        return NewSecret(number, secret)

    async def remove_secret(
        self, client_id: str, number: int, *, actor: str, caller: Caller
    ) -> None:
        """Remove a secret of a client; tokens issued with it stay valid.

        Raises:
            NotFoundError: when there is no such client or no such secret.
            UnavailableError: when the database is away.
        """
        async with self._database.write() as db:
            client = await lock_client(db, client_id)
            gone = await db.scalar(
                delete(ClientSecret)
                .where(
                    ClientSecret.client_id == client_id, ClientSecret.number == number
                )
                .returning(ClientSecret.number)
            )
            if gone is None:
                raise NotFoundError
            await update_client(db, client, {})
            act = Act("client.secret_removed", actor, client_id, {"number": number})
            await self._audit(db, act, caller)
        self._on_changed(client_id)

    async def revoke_all(
        self, client_id: str, caller: Caller, *, actor: str
    ) -> Position:
        """Revoke every token of the client's own.

        Such tokens have no rows, so each call is a new revocation. Only for a disabled
        client, which gets no new tokens, a repeated call writes nothing.

        Returns:
            The feed position of the entry.

        Raises:
            NotFoundError: when there is no such client.
            UnavailableError: when the database is away.
        """
        async with self._database.write() as db:
            client = await lock_client(db, client_id)
            if not await _is_done(db, client):
                act = Act("client.tokens_revoked", actor=actor, subject=client_id)
                await self._audit(db, act, caller)
                return await self._end_tokens(db, client, {})
        return await self._feed.head_position()

    def _is_narrowing(self, client: LockedClient, values: Mapping[str, str]) -> bool:
        own = {self._audience}
        had = set(client.scopes.split()), set(client.audiences.split()) or own
        scopes = values.get("scopes", client.scopes)
        audiences = values.get("audiences", client.audiences)
        has = set(scopes.split()), set(audiences.split()) or own
        return not (had[0] <= has[0] and had[1] <= has[1])

    async def _end_tokens(
        self, db: AsyncSession, client: LockedClient, values: Mapping[str, Any]
    ) -> Position:
        generation = client.generation + 1
        await update_client(db, client, {**values, "generation": generation})
        return await self._publish(db, client.id, generation)

    async def _publish(
        self, db: AsyncSession, client_id: str, generation: int
    ) -> Position:
        prune_at = last_expiry(seconds(self._clock))
        return await self._feed.append(
            db, Revocation(EntryKind.CLIENT, client_id, prune_at, generation)
        )


async def _is_done(db: AsyncSession, client: LockedClient) -> bool:
    """Return whether the client has no tokens left to revoke."""
    if client.disabled_at is None:
        return False
    published = select(FeedEntryRow.seq).where(
        FeedEntryRow.kind == EntryKind.CLIENT.value,
        FeedEntryRow.key == client.id,
        FeedEntryRow.minimum_generation >= client.generation,
    )
    return await db.scalar(published.limit(1)) is not None


def _read_change(change: ClientChange) -> dict[str, str]:
    values = {}
    if change.name is not None:
        _check_name(change.name)
        values["name"] = change.name
    if change.scopes is not None:
        values["scopes"] = format_scope(read_scopes(change.scopes))
    if change.audiences is not None:
        values["audiences"] = format_audiences(change.audiences)
    return values


def _check_name(name: str) -> None:
    if not 0 < len(name) <= _MAX_NAME_CHARS or not is_visible_text(name):
        rule = f"must have 1 to {_MAX_NAME_CHARS} characters, none of them unseen"
        raise InvalidRequestError.of_field("name", rule)
