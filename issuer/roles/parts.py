"""Composes roles."""

from issuer.feed.parts import FeedParts
from issuer.foundation import Foundation, Package
from issuer.roles import role_routes
from issuer.roles.roles import Roles


class RolesParts(Package):
    """The parts of roles."""

    routers = (role_routes.router,)

    def __init__(self, base: Foundation, feed: FeedParts) -> None:
        self.roles = Roles(base, feed.feed)
        self.provides = (self.roles,)
