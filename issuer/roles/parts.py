"""Composes roles."""

from dataclasses import dataclass

from issuer.feed.parts import FeedParts
from issuer.foundation import Foundation, Package
from issuer.roles import role_routes
from issuer.roles.roles import Roles
from issuer.tokens.parts import TokensParts


@dataclass(frozen=True, slots=True)
class RolesParts(Package):
    """The parts of roles."""

    roles: Roles


def compose(base: Foundation, tokens: TokensParts, feed: FeedParts) -> RolesParts:
    """Return the parts."""
    access, clock = tokens.access_tokens, base.clock
    roles = Roles(base.database, access, feed.feed, clock=clock, audit=base.audit)
    return RolesParts(roles, routers=(role_routes.router,), provides=(roles,))
