"""Everything about accounts and roles but logging in, put together."""

from __future__ import annotations

import os
from dataclasses import dataclass

from issuer.accounts.look_alikes import LookAlikes
from issuer.accounts.user_changes import UserChanges
from issuer.accounts.user_import import UserImport
from issuer.accounts.user_list import UserList
from issuer.accounts.users import Users
from issuer.acts import AuditWriter
from issuer.clock import Clock
from issuer.feed.feed import RevocationFeed
from issuer.hashing.hashing_pool import HashingPool
from issuer.hashing.passwords import PasswordHasher
from issuer.roles.roles import Roles
from issuer.sessions.logout import Logout
from issuer.settings.issuer_settings import IssuerSettings
from issuer.storage.db import Database
from issuer.tokens.access import AccessTokens


@dataclass(frozen=True, slots=True)
class AccountParts:
    """The parts; each tells in its own file what it is for."""

    users: Users
    user_list: UserList
    user_changes: UserChanges
    user_import: UserImport
    look_alikes: LookAlikes
    roles: Roles


def compose_accounts(
    settings: IssuerSettings,
    database: Database,
    hasher: PasswordHasher,
    pool: HashingPool,
    access_tokens: AccessTokens,
    logout: Logout,
    feed: RevocationFeed,
    *,
    clock: Clock,
    audit: AuditWriter,
) -> AccountParts:
    """Return the parts.

    Args:
        settings: as read at the start.
        database: where accounts are kept.
        hasher: hashes passwords.
        pool: runs the hasher.
        access_tokens: know how long a token can live.
        logout: ends sessions.
        feed: carries what ended to the verifiers.
        clock: gives the time in milliseconds.
        audit: records each act with the act.
    """
    minimum = settings.password_min_length
    return AccountParts(
        users=Users(
            database,
            hasher,
            pool,
            clock=clock,
            audit=audit,
            password_min_length=minimum,
        ),
        user_list=UserList(database),
        user_changes=UserChanges(database, logout, clock=clock, audit=audit),
        user_import=UserImport(
            database,
            hasher,
            pool,
            clock=clock,
            audit=audit,
            password_min_length=minimum,
            parallel=settings.hash_workers or os.cpu_count() or 1,
        ),
        look_alikes=LookAlikes(database),
        roles=Roles(database, access_tokens, feed, clock=clock, audit=audit),
    )
