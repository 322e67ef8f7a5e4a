"""Composes access tokens, and what a route asks of one."""

from issuer.exports.parts import ExportsParts
from issuer.foundation import Foundation, Package
from issuer.http.authorization.authentication import Authentication
from issuer.keys.parts import KeysParts
from issuer.tokens.access import AccessTokens


class TokensParts(Package):
    """The parts of access tokens."""

    def __init__(
        self, base: Foundation, keys: KeysParts, exports: ExportsParts
    ) -> None:
        self.access_tokens = AccessTokens(
            base, keys.store, status_indices=exports.status_indices
        )
        self.provides = (Authentication(base, self.access_tokens.verify),)
