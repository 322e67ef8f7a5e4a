"""Composes personal keys and their exchange for access tokens."""

from issuer.audit.parts import AuditParts
from issuer.feed.parts import FeedParts
from issuer.foundation import Foundation, Package
from issuer.login.parts import LoginParts
from issuer.personal_keys import personal_key_routes
from issuer.personal_keys.personal_key_exchange import PersonalKeyExchange
from issuer.personal_keys.personal_keys import PersonalKeys
from issuer.tokens.parts import TokensParts


class PersonalKeysParts(Package):
    """The parts of personal keys."""

    routers = (personal_key_routes.router,)

    def __init__(
        self,
        base: Foundation,
        audit: AuditParts,
        feed: FeedParts,
        tokens: TokensParts,
        login: LoginParts,
    ) -> None:
        self.personal_keys = PersonalKeys(base, feed.feed, login.account_proof.prove)
        self.exchange = PersonalKeyExchange(base, tokens.access_tokens, audit.counts)
        self.provides = (self.personal_keys,)
