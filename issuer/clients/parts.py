"""Composes what serves programs: clients, grants, and what a token is worth."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import orjson

from issuer.acts import Caller
from issuer.audit.parts import AuditParts
from issuer.clients import client_routes, metadata_routes, oauth_routes
from issuer.clients.authentication import ClientAuthentication
from issuer.clients.clients import Clients
from issuer.clients.grants import Grants, LogIn
from issuer.clients.token_status import TokenStatus
from issuer.feed.parts import FeedParts
from issuer.foundation import Foundation, Package
from issuer.login.login import Login
from issuer.login.parts import LoginParts
from issuer.personal_keys.parts import PersonalKeysParts
from issuer.revoking.parts import RevokingParts
from issuer.sessions.parts import SessionsParts
from issuer.sessions.sessions import TokenPair
from issuer.tokens.parts import TokensParts


@dataclass(frozen=True, slots=True)
class ClientsParts(Package):
    """The parts of clients."""

    clients: Clients
    authentication: ClientAuthentication
    grants: Grants
    token_status: TokenStatus


def compose(
    base: Foundation,
    authentication: ClientAuthentication,
    audit: AuditParts,
    feed: FeedParts,
    tokens: TokensParts,
    sessions: SessionsParts,
    revoking: RevokingParts,
    login: LoginParts,
    keys: PersonalKeysParts,
    metadata: Mapping[str, Any],
) -> ClientsParts:
    """Return the parts; `metadata` is what others add to the server's metadata."""
    settings, access, clock = base.settings, tokens.access_tokens, base.clock
    clients = Clients(
        base.database,
        access,
        feed.feed,
        clock=clock,
        audit=base.audit,
        on_changed=authentication.forget,
    )
    grants = Grants(
        authentication,
        access,
        sessions.sessions,
        keys.exchange,
        clock=clock,
        note_grant=audit.note_grant,
        log_in=_build_password_grant(login.login) if settings.password_grant else None,
    )
    token_status = TokenStatus(
        access, sessions.logout, revoking.revocations, keys.personal_keys
    )
    own = metadata_routes.build_metadata(settings.url, grants.types)
    document = metadata_routes.Metadata(orjson.dumps({**own, **metadata}))
    metadata_router = metadata_routes.build_router(settings.url, own)
    return ClientsParts(
        clients,
        authentication,
        grants,
        token_status,
        hot_routers=(oauth_routes.router,),
        routers=(client_routes.router, metadata_router),
        provides=(clients, authentication, grants, token_status, document),
    )


def _build_password_grant(login: Login) -> LogIn:
    async def log_in(
        username: str, password: str, caller: Caller, scope: str | None
    ) -> TokenPair:
        # RFC 6749, section 4.3, knows no device.
        return (await login.log_in(username, password, caller, scope=scope)).pair

    return log_in
