"""The rows of clients and their secrets, and their views.

Every function works in the caller's transaction.
"""

from __future__ import annotations

import re
import secrets
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, NamedTuple

from sqlalchemy import insert, select, update
from sqlalchemy.ext.asyncio import AsyncSession

from issuer.clients.client_secrets import make_secret
from issuer.errors import NotFoundError
from issuer.storage.pages import KeysetOrder, Pager
from issuer.storage.tables.clients import Client, ClientSecret
from issuer.tokens.opaque_tokens import RANDOM_BYTES, digest_token
from shared.jose import base64url

_CURSOR: Final = re.compile(r"([0-9]{1,12})\.(gc_[0-9a-f]{32})")


class SecretView(NamedTuple):
    """A living secret as administrators see it; the time is in Unix seconds."""

    number: int
    created_at: int


@dataclass(frozen=True, slots=True)
class ClientView:
    """A client without its secrets.

    Attributes:
        id: the `client_id`.
        name: for people.
        scopes: that it may request, sorted.
        audiences: of its tokens, sorted; if empty, the issuer's own.
        is_disabled: a disabled client gets no token.
        created_at: Unix seconds.
        version: counts its changes.
        secrets: the living ones, oldest first.
    """

    id: str
    name: str
    scopes: tuple[str, ...]
    audiences: tuple[str, ...]
    is_disabled: bool
    created_at: int
    version: int
    secrets: tuple[SecretView, ...]


class LockedClient(NamedTuple):
    """A client whose row is locked until the commit."""

    id: str
    name: str
    scopes: str
    audiences: str
    generation: int
    version: int
    secrets_made: int
    disabled_at: int | None
    created_at: int


#: Raises when the client is not in the state that the changer saw.
ExpectClient = Callable[[ClientView], None]


async def lock_client(
    db: AsyncSession, client_id: str, expect: ExpectClient | None = None
) -> LockedClient:
    """Return a client and lock its row until the commit.

    Raises:
        NotFoundError: when there is none.
        PreconditionFailedError: from `expect`.
    """
    columns = (getattr(Client, name) for name in LockedClient._fields)
    found = await db.execute(
        select(*columns).where(Client.id == client_id).with_for_update()
    )
    row = found.one_or_none()
    if row is None:
        raise NotFoundError
    client = LockedClient(*row)
    if expect is not None:
        (view,) = await build_views(db, [client])
        expect(view)
    return client


async def update_client(
    db: AsyncSession, client: LockedClient, values: Mapping[str, Any]
) -> None:
    """Write new values into a client's row, and its next version."""
    await db.execute(
        update(Client)
        .where(Client.id == client.id)
        .values(version=client.version + 1, **values)
        .execution_options(synchronize_session=False)
    )


async def insert_client(
    db: AsyncSession, client_id: str, name: str, scopes: str, audiences: str, now: int
) -> None:
    """Insert the row of a new client; its first secret follows."""
    await db.execute(
        insert(Client).values(
            id=client_id,
            name=name,
            scopes=scopes,
            audiences=audiences,
            generation=0,
            version=1,
            secrets_made=1,
            created_at=now,
        )
    )


async def insert_secret(db: AsyncSession, client_id: str, number: int, now: int) -> str:
    """Make a secret, store its digest, and return it."""
    secret = make_secret(secrets.token_bytes(RANDOM_BYTES))
    await db.execute(
        insert(ClientSecret).values(
            digest=digest_token(secret),
            client_id=client_id,
            number=number,
            created_at=now,
        )
    )
    return secret


def _write_cursor(last: Client) -> str:
    return base64url.encode(f"{last.created_at}.{last.id}".encode())


def _read_cursor(text: str) -> tuple[int, str]:
    match = _CURSOR.fullmatch(base64url.decode(text.encode("ascii")).decode())
    if match is None:
        raise ValueError
    return int(match[1]), match[2]


#: Pages of clients, oldest first.
OLDEST_FIRST: Final = Pager(
    KeysetOrder((Client.created_at, Client.id)), _write_cursor, _read_cursor
)


async def build_views(
    db: AsyncSession, clients: Sequence[Client | LockedClient]
) -> Sequence[ClientView]:
    """Return the views of clients, each with its living secrets."""
    rows = await db.execute(
        select(ClientSecret.client_id, ClientSecret.number, ClientSecret.created_at)
        .where(ClientSecret.client_id.in_([client.id for client in clients]))
        .order_by(ClientSecret.number)
    )
    living: dict[str, list[SecretView]] = {}
    for client_id, number, created_at in rows:
        living.setdefault(client_id, []).append(SecretView(number, created_at))
    return [
        ClientView(
            id=client.id,
            name=client.name,
            scopes=tuple(client.scopes.split()),
            audiences=tuple(client.audiences.split()),
            is_disabled=client.disabled_at is not None,
            created_at=client.created_at,
            version=client.version,
            secrets=tuple(living.get(client.id, ())),
        )
        for client in clients
    ]
