"""Composes access tokens, and what a route asks of one."""

from dataclasses import dataclass

from issuer.exports.parts import ExportsParts
from issuer.foundation import Foundation, Package
from issuer.http.authorization.administration import AdministrationRule
from issuer.http.authorization.authentication import Authentication
from issuer.keys.parts import KeysParts
from issuer.tokens.access import AccessTokens


@dataclass(frozen=True, slots=True)
class TokensParts(Package):
    """The parts of access tokens."""

    access_tokens: AccessTokens


def compose(base: Foundation, keys: KeysParts, exports: ExportsParts) -> TokensParts:
    """Return the parts."""
    settings, clock = base.settings, base.clock
    access_tokens = AccessTokens(
        base.database,
        keys.store,
        issuer_url=settings.url,
        audience=settings.audience,
        access_ttl=settings.access_ttl,
        clock=clock,
        status_indices=exports.status_indices,
    )
    rule = AdministrationRule(
        settings.admin_max_login_age, settings.admin_second_factor
    )
    authentication = Authentication(access_tokens.verify, rule, clock)
    return TokensParts(access_tokens, provides=(authentication,))
