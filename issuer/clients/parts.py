"""Builds what serves programs: clients, personal keys, grants, what a token is worth."""

from __future__ import annotations

from dataclasses import dataclass

from issuer.acts import AuditWriter, TallyWriter
from issuer.clients.authentication import ClientAuthentication
from issuer.clients.clients import Clients
from issuer.clients.grants import Grants, LogIn
from issuer.clients.token_status import TokenStatus
from issuer.clock import Clock
from issuer.feed.feed import RevocationFeed
from issuer.personal_keys.personal_key_exchange import PersonalKeyExchange
from issuer.personal_keys.personal_keys import PersonalKeys, ProveOwner
from issuer.revoking.revocations import Revocations
from issuer.sessions.logout import Logout
from issuer.sessions.sessions import Sessions
from issuer.settings.issuer_settings import IssuerSettings
from issuer.storage.db import Database
from issuer.storage.rate_limits import RateLimits
from issuer.tokens.access import AccessTokens


@dataclass(frozen=True, slots=True)
class ClientParts:
    """The composed parts."""

    clients: Clients
    authentication: ClientAuthentication
    personal_keys: PersonalKeys
    grants: Grants
    token_status: TokenStatus


def compose_clients(
    settings: IssuerSettings,
    database: Database,
    authentication: ClientAuthentication,
    access_tokens: AccessTokens,
    sessions: Sessions,
    logout: Logout,
    revocations: Revocations,
    feed: RevocationFeed,
    log_in: LogIn,
    prove: ProveOwner,
    limits: RateLimits,
    *,
    clock: Clock,
    audit: AuditWriter,
    note_grant: TallyWriter,
    note_failure: TallyWriter,
) -> ClientParts:
    """Build the parts.

    Args:
        settings: say which grants there are.
        database: where clients and keys are kept.
        authentication: tells which client asks.
        access_tokens: mint and read access tokens.
        sessions: go on with a refresh token.
        logout: ends sessions.
        revocations: revoke single tokens.
        feed: carries revocations to the verifiers.
        log_in: opens sessions by password, where that grant is on.
        prove: asks the owner of a new key for password and code.
        limits: how often a user may make and exchange keys.
        clock: gives the time in milliseconds.
        audit: records each act with the act.
        note_grant: records each token given.
        note_failure: records each credential refused.
    """
    personal_keys = PersonalKeys(
        database,
        access_tokens,
        feed,
        prove,
        clock=clock,
        audit=audit,
        max_ttl=settings.personal_key_max_ttl,
        may_administer=settings.personal_key_admin,
        limits=limits,
    )
    key_exchange = PersonalKeyExchange(
        database,
        access_tokens,
        limits,
        clock=clock,
        note_grant=note_grant,
        note_failure=note_failure,
        may_administer=settings.personal_key_admin,
    )
    return ClientParts(
        clients=Clients(
            database,
            access_tokens,
            feed,
            clock=clock,
            audit=audit,
            on_changed=authentication.forget,
        ),
        authentication=authentication,
        personal_keys=personal_keys,
        grants=Grants(
            authentication,
            access_tokens,
            sessions,
            key_exchange,
            clock=clock,
            note_grant=note_grant,
            log_in=log_in if settings.password_grant else None,
        ),
        token_status=TokenStatus(access_tokens, logout, revocations, personal_keys),
    )
