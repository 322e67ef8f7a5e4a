"""Composes access tokens, and what a route asks of one."""

from issuer.exports.parts import ExportsParts
from issuer.foundation import Foundation, Package
from issuer.http.authorization.administration import AdministrationRule
from issuer.http.authorization.authentication import Authentication
from issuer.keys.parts import KeysParts
from issuer.tokens.access import AccessTokens


class TokensParts(Package):
    """The parts of access tokens."""

    def __init__(
        self, base: Foundation, keys: KeysParts, exports: ExportsParts
    ) -> None:
        settings = base.settings
        self.access_tokens = AccessTokens(
            base, keys.store, status_indices=exports.status_indices
        )
        rule = AdministrationRule(
            settings.admin_max_login_age, settings.admin_second_factor
        )
        verify = self.access_tokens.verify
        self.provides = (Authentication(verify, rule, base.clock),)
