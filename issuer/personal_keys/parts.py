"""Composes personal keys and their exchange for access tokens."""

from dataclasses import dataclass

from issuer.audit.parts import AuditParts
from issuer.feed.parts import FeedParts
from issuer.foundation import Foundation, Package
from issuer.login.parts import LoginParts
from issuer.personal_keys import personal_key_routes
from issuer.personal_keys.personal_key_exchange import PersonalKeyExchange
from issuer.personal_keys.personal_keys import PersonalKeys
from issuer.tokens.parts import TokensParts


@dataclass(frozen=True, slots=True)
class PersonalKeysParts(Package):
    """The parts of personal keys."""

    personal_keys: PersonalKeys
    exchange: PersonalKeyExchange


def compose(
    base: Foundation,
    audit: AuditParts,
    feed: FeedParts,
    tokens: TokensParts,
    login: LoginParts,
) -> PersonalKeysParts:
    """Return the parts."""
    database, clock, access = base.database, base.clock, tokens.access_tokens
    settings = base.settings
    personal_keys = PersonalKeys(
        database,
        access,
        feed.feed,
        login.account_proof.prove,
        clock=clock,
        audit=base.audit,
        max_ttl=settings.personal_key_max_ttl,
        may_administer=settings.personal_key_admin,
        limits=base.limits,
    )
    exchange = PersonalKeyExchange(
        database,
        access,
        base.limits,
        clock=clock,
        note_grant=audit.note_grant,
        note_failure=audit.note_failure,
        may_administer=settings.personal_key_admin,
    )
    return PersonalKeysParts(
        personal_keys,
        exchange,
        routers=(personal_key_routes.router,),
        provides=(personal_keys,),
    )
