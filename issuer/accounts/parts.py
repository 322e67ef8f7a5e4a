"""Composes accounts."""

from dataclasses import dataclass

from issuer.accounts import user_change_routes, user_routes
from issuer.accounts.look_alikes import LookAlikes
from issuer.accounts.user_changes import UserChanges
from issuer.accounts.user_import import UserImport
from issuer.accounts.user_list import UserList
from issuer.accounts.users import Users
from issuer.foundation import BackgroundTask, Foundation, Package
from issuer.hashing.parts import HashingParts
from issuer.sessions.parts import SessionsParts


@dataclass(frozen=True, slots=True)
class AccountsParts(Package):
    """The parts of accounts."""

    users: Users
    user_list: UserList
    user_changes: UserChanges
    user_import: UserImport
    look_alikes: LookAlikes


def compose(
    base: Foundation, hashing: HashingParts, sessions: SessionsParts
) -> AccountsParts:
    """Return the parts."""
    database, clock, audit = base.database, base.clock, base.audit
    hasher, pool, length = (
        hashing.hasher,
        hashing.pool,
        base.settings.password_min_length,
    )
    users = Users(
        database, hasher, pool, clock=clock, audit=audit, password_min_length=length
    )
    user_import = UserImport(
        database,
        hasher,
        pool,
        clock=clock,
        audit=audit,
        password_min_length=length,
        parallel=hashing.workers,
    )
    user_list, look_alikes = UserList(database), LookAlikes(database)
    user_changes = UserChanges(
        database, sessions.logout, sessions.ending, clock=clock, audit=audit
    )
    return AccountsParts(
        users,
        user_list,
        user_changes,
        user_import,
        look_alikes,
        routers=(user_routes.router, user_change_routes.router),
        provides=(users, user_list, user_changes),
        tasks=(BackgroundTask(look_alikes.fill, every=60),),
    )
