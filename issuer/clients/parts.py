"""Composes what serves programs: clients, grants, and what a token is worth."""

from issuer.audit.parts import AuditParts
from issuer.clients import client_routes, metadata_routes, oauth_routes
from issuer.clients.authentication import ClientAuthentication
from issuer.clients.clients import Clients
from issuer.clients.grants import Grants
from issuer.clients.token_status import TokenStatus
from issuer.exports.parts import ExportsParts
from issuer.feed.parts import FeedParts
from issuer.foundation import Foundation, Package
from issuer.login.parts import LoginParts
from issuer.personal_keys.parts import PersonalKeysParts
from issuer.revoking.parts import RevokingParts
from issuer.sessions.parts import SessionsParts
from issuer.tokens.parts import TokensParts


class ClientsParts(Package):
    """The parts of clients."""

    hot_routers = (oauth_routes.router,)

    def __init__(
        self,
        base: Foundation,
        audit: AuditParts,
        exports: ExportsParts,
        feed: FeedParts,
        tokens: TokensParts,
        sessions: SessionsParts,
        revoking: RevokingParts,
        login: LoginParts,
        keys: PersonalKeysParts,
    ) -> None:
        url, access = base.settings.url, tokens.access_tokens
        self.authentication = authentication = ClientAuthentication(base, audit.counts)
        feed.feed.on_appended.append(authentication.forget_revoked)
        self.clients = Clients(base, feed.feed, on_changed=authentication.forget)
        self.grants = Grants(
            base,
            authentication,
            access,
            sessions.sessions,
            keys.exchange,
            audit.counts,
            login.login,
        )
        self.token_status = TokenStatus(
            access, sessions.logout, revoking.revocations, keys.personal_keys
        )
        metadata = metadata_routes.Metadata(url, self.grants.types, exports.metadata)
        self.routers = (client_routes.router, metadata.build_router())
        self.provides = (
            self.clients,
            authentication,
            self.grants,
            self.token_status,
            metadata,
        )
