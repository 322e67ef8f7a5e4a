"""Builds every part of the issuer and hands each what it works with.

The applications, the commands and the tests all start from `compose`.
"""

from __future__ import annotations

import os
from dataclasses import dataclass

from issuer.accounts.hashing_pool import HashingPool
from issuer.accounts.login import Login
from issuer.accounts.password_change import PasswordChange
from issuer.accounts.passwords import PasswordHasher
from issuer.accounts.users import Users
from issuer.acts import AuditWriter
from issuer.audit.log import AuditLog
from issuer.clients.clients import Clients
from issuer.clients.token_status import TokenStatus
from issuer.clock import Clock, system_clock
from issuer.db import Database
from issuer.keys.rotation import KeyRotation
from issuer.keys.rotation import RotationLimits as KeyLimits
from issuer.keys.store import KeyStore
from issuer.metrics import IssuerMetrics
from issuer.revocation.feed import Revocation, RevocationFeed
from issuer.revocation.watch import FeedWatch
from issuer.settings import IssuerSettings
from issuer.tokens.access import AccessTokens
from issuer.tokens.families import RefreshFamilies
from issuer.tokens.logout import Logout
from issuer.tokens.refresh import RotationLimits
from issuer.tokens.revocations import Revocations
from issuer.tokens.sessions import Sessions


@dataclass(frozen=True, slots=True)
class Foundation:
    """What every part stands on."""

    settings: IssuerSettings
    clock: Clock
    database: Database
    metrics: IssuerMetrics
    audit: AuditWriter


@dataclass(frozen=True, slots=True)
class Issuer:
    """The composed parts."""

    settings: IssuerSettings
    clock: Clock
    database: Database
    metrics: IssuerMetrics
    keys: KeyStore
    key_rotation: KeyRotation
    feed: RevocationFeed
    feed_watch: FeedWatch
    access_tokens: AccessTokens
    logout: Logout
    revocations: Revocations
    sessions: Sessions
    hashing_pool: HashingPool
    users: Users
    login: Login
    password_change: PasswordChange
    clients: Clients
    token_status: TokenStatus

    async def close(self) -> None:
        """Give back threads and connections."""
        self.hashing_pool.close()
        await self.database.close()


def compose(
    settings: IssuerSettings,
    *,
    clock: Clock = system_clock,
    database: Database | None = None,
) -> Issuer:
    """Build every part; nothing is connected or read yet.

    Args:
        settings: as read at the start.
        clock: gives the time in milliseconds.
        database: made from the settings when left out; `Issuer.close` closes it either
            way.
    """
    if database is None:
        database = Database(
            settings.database_url,
            pool_size=settings.database_pool_size,
            pool_timeout=settings.database_pool_timeout,
        )
    audit = AuditLog(clock).write_event
    base = Foundation(settings, clock, database, IssuerMetrics(), audit)
    keys, key_rotation = _compose_keys(base)
    feed, feed_watch = _compose_feed(base)
    access_tokens = AccessTokens(
        database,
        keys,
        issuer_url=settings.url,
        audience=settings.audience,
        access_ttl=settings.access_ttl,
        clock=clock,
    )
    logout, sessions = _compose_sessions(base, access_tokens, feed)
    revocations = Revocations(database, access_tokens, feed, clock=clock, audit=audit)
    pool, users, login, password_change = _compose_accounts(base, sessions)
    return Issuer(
        settings=settings,
        clock=clock,
        database=database,
        metrics=base.metrics,
        keys=keys,
        key_rotation=key_rotation,
        feed=feed,
        feed_watch=feed_watch,
        access_tokens=access_tokens,
        logout=logout,
        revocations=revocations,
        sessions=sessions,
        hashing_pool=pool,
        users=users,
        login=login,
        password_change=password_change,
        clients=Clients(database, access_tokens, feed, clock=clock, audit=audit),
        token_status=TokenStatus(access_tokens, logout, revocations),
    )


def _compose_keys(base: Foundation) -> tuple[KeyStore, KeyRotation]:
    settings = base.settings
    store = KeyStore(
        base.database,
        settings.key_encryption_keys,
        rsa_bits=settings.rsa_bits,
        clock=base.clock,
    )
    limits = KeyLimits(settings.key_rotation_interval, settings.key_publish_ahead)
    rotation = KeyRotation(
        base.database, store, limits, clock=base.clock, audit=base.audit
    )
    return store, rotation


def _compose_feed(base: Foundation) -> tuple[RevocationFeed, FeedWatch]:
    def on_appended(revocations: tuple[Revocation, ...], last: int) -> None:
        for revocation in revocations:
            base.metrics.revocation(revocation.kind.value)
        base.metrics.feed_head(last)
        watch.wake(last)

    feed = RevocationFeed(
        base.database,
        clock=base.clock,
        issuer_url=base.settings.url,
        max_ttl=base.settings.access_ttl,
        on_appended=on_appended,
    )
    watch = FeedWatch(feed.head, base.metrics.feed_waiting)
    return feed, watch


def _compose_sessions(
    base: Foundation, access_tokens: AccessTokens, feed: RevocationFeed
) -> tuple[Logout, Sessions]:
    settings = base.settings
    families = RefreshFamilies(
        settings.refresh_keys,
        RotationLimits(settings.refresh_grace, settings.refresh_idle_ttl),
    )
    logout = Logout(
        base.database,
        families,
        access_tokens,
        feed,
        clock=base.clock,
        audit=base.audit,
    )
    sessions = Sessions(
        base.database,
        families,
        access_tokens,
        logout,
        clock=base.clock,
        audit=base.audit,
        refresh_ttl=settings.refresh_ttl,
        count_refresh=base.metrics.refresh,
    )
    return logout, sessions


def _compose_accounts(
    base: Foundation, sessions: Sessions
) -> tuple[HashingPool, Users, Login, PasswordChange]:
    settings, database = base.settings, base.database
    hasher = PasswordHasher(settings.password_peppers, cost=settings.bcrypt_cost)

    def on_change(waiting: int, busy: int) -> None:
        base.metrics.hashing_waiting(waiting)
        base.metrics.hashing_busy(busy)

    pool = HashingPool(
        workers=settings.hash_workers or os.cpu_count() or 1,
        queue=settings.hash_queue,
        on_change=on_change,
    )
    users = Users(
        database,
        hasher,
        pool,
        clock=base.clock,
        audit=base.audit,
        password_min_length=settings.password_min_length,
    )
    login = Login(
        database,
        hasher,
        pool,
        sessions,
        audit=base.audit,
        count_login=base.metrics.login,
    )
    password_change = PasswordChange(
        database,
        hasher,
        pool,
        sessions,
        clock=base.clock,
        audit=base.audit,
        password_min_length=settings.password_min_length,
    )
    return pool, users, login, password_change
