"""Clients: programs that authenticate by themselves."""

from __future__ import annotations

import secrets
import uuid
from collections.abc import Iterable
from dataclasses import dataclass
from typing import NamedTuple

from sqlalchemy import insert, select, update

from issuer.acts import Act, AuditWriter, Caller
from issuer.clients.client_secrets import (
    RANDOM_BYTES,
    digest_secret,
    make_secret,
    verify_secret,
)
from issuer.clients.credentials import ClientCredentials
from issuer.clock import Clock, seconds
from issuer.db import Database
from issuer.errors import (
    FieldProblem,
    InvalidClientError,
    InvalidRequestError,
    InvalidScopeError,
    NotFoundError,
)
from issuer.models import Client, ClientSecret
from issuer.revocation.feed import Revocation, RevocationFeed
from issuer.tokens.access import AccessGrant, AccessTokens, MintedToken
from issuer.tokens.scopes import format_scope, parse_scope
from shared.claims import is_plain_text
from shared.feed import EntryKind

_MAX_NAME_CHARS = 200


class NewClient(NamedTuple):
    """A client just made. The secret is shown this once; only its digest is kept."""

    client_id: str
    secret: str


@dataclass(frozen=True, slots=True)
class AuthenticatedClient:
    """A client that showed its secret; only `Clients.authenticate` makes one."""

    client_id: str
    scopes: frozenset[str]
    generation: int


class Clients:
    """Makes clients, authenticates them and gives them tokens of their own.

    Args:
        database: where they are kept.
        access_tokens: mints their tokens.
        feed: carries revocations to the verifiers.
        clock: gives the time in milliseconds.
        audit: records each act with the act.
    """

    def __init__(
        self,
        database: Database,
        access_tokens: AccessTokens,
        feed: RevocationFeed,
        *,
        clock: Clock,
        audit: AuditWriter,
    ) -> None:
        self._database = database
        self._access_tokens = access_tokens
        self._feed = feed
        self._clock = clock
        self._audit = audit

    async def create(
        self, name: str, scopes: Iterable[str], *, by: str, caller: Caller
    ) -> NewClient:
        """Make a client and return its id and secret.

        Args:
            name: for people, 1..200 characters.
            scopes: what it may ask for.
            by: who makes it.
            caller: where that came from.

        Raises:
            InvalidRequestError: when the name breaks a rule.
            InvalidScopeError: when a scope is malformed.
            UnavailableError: when the database is away.
        """
        if not 0 < len(name) <= _MAX_NAME_CHARS or not is_plain_text(name):
            rule = f"must have 1 to {_MAX_NAME_CHARS} characters, none of them unseen"
            raise InvalidRequestError(problems=[FieldProblem("name", rule)])
        scope = format_scope(parse_scope(" ".join(scopes)))
        # The prefix keeps it from ever being a user's id (RFC 9068, section 5).
        client_id = f"gc_{uuid.uuid4().hex}"
        secret = make_secret(secrets.token_bytes(RANDOM_BYTES))
        now = seconds(self._clock)
        async with self._database.write() as db:
            await db.execute(
                insert(Client).values(
                    id=client_id,
                    name=name,
                    scopes=scope,
                    generation=0,
                    version=1,
                    created_at=now,
                )
            )
            await db.execute(
                insert(ClientSecret).values(
                    digest=digest_secret(secret), client_id=client_id, created_at=now
                )
            )
            act = Act("client.created", by, client_id, {"scope": scope})
            await self._audit(db, act, caller)
        return NewClient(client_id, secret)

    async def authenticate(self, credentials: ClientCredentials) -> AuthenticatedClient:
        """Return the client that these credentials belong to.

        Raises:
            InvalidClientError: when they belong to no enabled client.
            UnavailableError: when the database is away.
        """
        client_id = credentials.client_id
        async with self._database.read() as db:
            client = await db.get(Client, client_id)
            digests = await db.scalars(
                select(ClientSecret.digest).where(ClientSecret.client_id == client_id)
            )
            known = digests.all()
        verify_secret(credentials.secret, known)
        if client is None or client.disabled_at is not None:
            raise InvalidClientError(detail="the client is disabled or gone")
        return AuthenticatedClient(
            client_id, frozenset(client.scopes.split()), client.generation
        )

    async def grant_credentials(
        self, client: AuthenticatedClient, scope: str | None
    ) -> tuple[MintedToken, str]:
        """Return a token in which the client speaks for itself, and its scope.

        Args:
            client: who asks (RFC 6749, section 4.4).
            scope: the part of its scopes it wants, space-delimited; None: all of them.

        Raises:
            InvalidScopeError: when it wants more than it may have.
            UnavailableError: when there is no signing key.
        """
        wanted = client.scopes if scope is None else parse_scope(scope)
        if not wanted <= client.scopes:
            raise InvalidScopeError("The scope exceeds what the client may ask for.")
        granted = format_scope(wanted)
        grant = AccessGrant(
            subject=client.client_id,
            client_id=client.client_id,
            sid=str(uuid.uuid4()),
            generation=client.generation,
            scope=granted,
            roles=(),
            auth_time=seconds(self._clock),
        )
        return await self._access_tokens.mint(grant), granted

    async def revoke_all(self, client_id: str, caller: Caller, *, actor: str) -> int:
        """Revoke every token in which the client speaks for itself.

        Returns:
            The feed position of the entry.

        Raises:
            NotFoundError: when there is no such client.
            UnavailableError: when the database is away.
        """
        prune_at = self._access_tokens.last_expiry(seconds(self._clock))
        async with self._database.write() as db:
            generation = await db.scalar(
                update(Client)
                .where(Client.id == client_id)
                .values(generation=Client.generation + 1)
                .returning(Client.generation)
            )
            if generation is None:
                raise NotFoundError
            act = Act("client.tokens_revoked", actor=actor, subject=client_id)
            await self._audit(db, act, caller)
            return await self._feed.append(
                db, Revocation(EntryKind.CLIENT, client_id, prune_at, generation)
            )
