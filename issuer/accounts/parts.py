"""Composes accounts."""

from issuer.accounts import user_change_routes, user_routes
from issuer.accounts.look_alikes import LookAlikes
from issuer.accounts.user_changes import UserChanges
from issuer.accounts.user_import import UserImport
from issuer.accounts.user_list import UserList
from issuer.accounts.users import Users
from issuer.foundation import BackgroundTask, Foundation, Package
from issuer.hashing.parts import HashingParts
from issuer.sessions.parts import SessionsParts


class AccountsParts(Package):
    """The parts of accounts."""

    routers = (user_routes.router, user_change_routes.router)

    def __init__(
        self, base: Foundation, hashing: HashingParts, sessions: SessionsParts
    ) -> None:
        self.users = Users(base, hashing.new_passwords)
        self.user_list = UserList(base.database)
        self.user_changes = UserChanges(base, sessions.logout, sessions.ending)
        self.user_import = UserImport(base, hashing.hasher, hashing.pool)
        self.look_alikes = LookAlikes(base.database)
        self.provides = (self.users, self.user_list, self.user_changes)
        self.tasks = (BackgroundTask(self.look_alikes.fill, every=60),)
