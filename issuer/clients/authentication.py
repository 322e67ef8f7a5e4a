"""Authenticates clients: by their secret, or the first party, which has none.

A client's rows are cached for a second, which halves the cost of a grant. This is safe
because every change that takes rights from a client raises its generation: a token
minted from cached rows is refused wherever the change is known. Other processes accept
a removed secret for up to that second.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from sqlalchemy import bindparam, select

from issuer.acts import Act, Caller
from issuer.audit.counts import AuditCounts
from issuer.clients.client_secrets import verify_secret
from issuer.clients.credentials import ClientCredentials, read_credentials
from issuer.errors import InvalidClientError
from issuer.feed.feed import Revocation
from issuer.foundation import Foundation
from issuer.sessions.open_sessions import FIRST_PARTY_CLIENT_ID
from issuer.storage.tables.clients import Client, ClientSecret
from shared.feed import EntryKind

_FACTS_AGE_MS: Final = 1_000
_MAX_FACTS: Final = 1_000
# Columns and one statement: this runs for every request of a client.
_FIND: Final = (
    select(
        Client.scopes,
        Client.audiences,
        Client.generation,
        Client.disabled_at,
        ClientSecret.digest,
    )
    .outerjoin(ClientSecret, ClientSecret.client_id == Client.id)
    .where(Client.id == bindparam("client_id"))
)


@dataclass(frozen=True, slots=True)
class AuthenticatedClient:
    """A client that showed its secret; only `ClientAuthentication` makes one.

    Attributes:
        client_id: the id.
        scopes: that it may request.
        audiences: of its tokens; if empty, the issuer's own.
        generation: the least valid `gen` of its tokens.
    """

    client_id: str
    scopes: frozenset[str]
    audiences: frozenset[str]
    generation: int


@dataclass(frozen=True, slots=True)
class _Facts:
    """The rows of an enabled client, and the time of reading in milliseconds."""

    client: AuthenticatedClient
    digests: tuple[bytes, ...]
    read_at_ms: int


@dataclass(frozen=True, slots=True)
class PublicClient:
    """A client that cannot authenticate (RFC 6749, section 2.1).

    Its rights follow from the token it presents, never from its name.
    """

    client_id: str = FIRST_PARTY_CLIENT_ID
    scopes: frozenset[str] = frozenset()


class ClientAuthentication:
    """Finds the client of a request.

    Args:
        base: gives the database, which has the clients, and the clock.
        counts: records each failure before it is answered.
    """

    def __init__(self, base: Foundation, counts: AuditCounts) -> None:
        self._database = base.database
        self._clock = base.clock
        self._counts = counts
        self._facts: dict[str, _Facts] = {}

    async def authenticate(
        self, authorization: Sequence[str], form: Mapping[str, str], caller: Caller
    ) -> AuthenticatedClient:
        """Return the client of the credentials in a request (RFC 6749, 2.3.1).

        Args:
            authorization: its `Authorization` headers.
            form: its form parameters.
            caller: origin of the request.

        Raises:
            InvalidRequestError: when it shows more than one set of credentials.
            InvalidClientError: when they belong to no enabled client.
            UnavailableError: when the database is away.
        """
        try:
            credentials = read_credentials(authorization, form)
        except InvalidClientError as error:
            await self._record(error, None, caller)
            raise
        return await self.verify(credentials, caller)

    async def identify(
        self, authorization: Sequence[str], form: Mapping[str, str], caller: Caller
    ) -> AuthenticatedClient | PublicClient:
        """Return the client that authenticates, or the first party by its name.

        Args:
            authorization: its `Authorization` headers.
            form: its form parameters.
            caller: origin of the request.

        Raises:
            InvalidRequestError: as `authenticate`.
            InvalidClientError: as `authenticate`; also when it neither authenticates
                nor names the first party.
            UnavailableError: when the database is away.
        """
        is_named = form.get("client_id") == FIRST_PARTY_CLIENT_ID
        if is_named and not authorization and "client_secret" not in form:
            return PublicClient()
        return await self.authenticate(authorization, form, caller)

    async def verify(
        self, credentials: ClientCredentials, caller: Caller
    ) -> AuthenticatedClient:
        """Return the client that these credentials belong to.

        Raises:
            InvalidClientError: when they belong to no enabled client.
            UnavailableError: when the database is away.
        """
        kept = self._facts.get(credentials.client_id)
        if kept is not None and 0 <= self._clock() - kept.read_at_ms < _FACTS_AGE_MS:
            try:
                verify_secret(credentials.secret, kept.digests)
            except InvalidClientError:
                pass  # it may be a new secret: read the rows
            else:
                return kept.client
        facts = await self._read(credentials, caller)
        self._facts.pop(credentials.client_id, None)
        if len(self._facts) >= _MAX_FACTS:
            del self._facts[next(iter(self._facts))]
        self._facts[credentials.client_id] = facts
        return facts.client

    def forget(self, client_id: str) -> None:
        """Drop the cached rows of a client: they were just changed."""
        self._facts.pop(client_id, None)

    def forget_revoked(self, revocations: Sequence[Revocation], _last: int) -> None:
        """Drop the cached rows of revoked clients (a `feed.OnAppended`)."""
        for revocation in revocations:
            if revocation.kind is EntryKind.CLIENT:
                self.forget(revocation.key)

    async def _read(self, credentials: ClientCredentials, caller: Caller) -> _Facts:
        client_id = credentials.client_id
        now_ms = self._clock()
        async with self._database.read() as db:
            rows = (await db.execute(_FIND, {"client_id": client_id})).all()
        digests = tuple(row.digest for row in rows if row.digest is not None)
        try:
            verify_secret(credentials.secret, digests)
            row = rows[0]
            if row.disabled_at is not None:
                raise InvalidClientError(detail="the client is disabled")
        except InvalidClientError as error:
            await self._record(error, client_id if rows else None, caller)
            raise
        client = AuthenticatedClient(
            client_id,
            frozenset(row.scopes.split()),
            frozenset(row.audiences.split()),
            row.generation,
        )
        return _Facts(client, digests, now_ms)

    async def _record(
        self, error: InvalidClientError, client_id: str | None, caller: Caller
    ) -> None:
        """Record a failure; an unknown id may be a secret and is not recorded."""
        facts = {"reason": error.detail}
        subject = client_id or "unknown"
        act = Act("client.authentication_failed", "unknown", subject, facts)
        await self._counts.note_failure(act, caller)
