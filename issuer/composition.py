"""Builds every part of the issuer and hands each what it works with.

The applications, the commands and the tests all start from `compose`.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from urllib.parse import urlsplit

from issuer.accounts.names import normalise_username
from issuer.accounts.parts import AccountParts, compose_accounts
from issuer.accounts.users import Users
from issuer.acts import AuditWriter, Caller
from issuer.audit.parts import AuditParts, compose_audit
from issuer.clients.authentication import ClientAuthentication
from issuer.clients.clients import Clients
from issuer.clients.grants import LogIn
from issuer.clients.parts import ClientParts, compose_clients
from issuer.clock import Clock, ElapsedClock, elapsed_clock, seconds, system_clock
from issuer.credentials.sources import find_source
from issuer.exports.event_delivery import EventDelivery
from issuer.exports.security_events import SecurityEventOutbox
from issuer.exports.status_list import StatusIndices
from issuer.exports.status_list_tokens import StatusLists
from issuer.feed.canary import Canary
from issuer.feed.feed import RevocationFeed, WriteAlso
from issuer.feed.feed_credential import FeedCredential
from issuer.feed.following import Following, compose_following
from issuer.hashing.hash_times import HashTimes
from issuer.hashing.hash_work import bcrypt_work
from issuer.hashing.hashing_pool import HashingPool
from issuer.hashing.passwords import PasswordHasher
from issuer.keys.parts import KeyParts, compose_keys
from issuer.keys.rotation import KeyRotation
from issuer.keys.store import KeyStore
from issuer.login.login import Login
from issuer.login.parts import LoginParts, compose_login
from issuer.metrics import IssuerMetrics
from issuer.passwords.password_change import PasswordChange
from issuer.passwords.password_reset import PasswordReset
from issuer.revoking.bulk import BulkRevocation
from issuer.revoking.bulk_rows import BulkRows
from issuer.revoking.quick_revocation import QuickRevocation
from issuer.revoking.revocations import Revocations
from issuer.second_factor.second_factor import SecondFactors
from issuer.sessions.families import RefreshFamilies
from issuer.sessions.logout import Logout
from issuer.sessions.quick_rotation import QuickRotation
from issuer.sessions.refresh import RotationLimits
from issuer.sessions.session_ending import SessionEnding
from issuer.sessions.session_list import SessionLimits, SessionList
from issuer.sessions.sessions import Sessions, TokenPair
from issuer.settings.issuer_settings import IssuerSettings, load_settings
from issuer.startup.reload import Reloader
from issuer.storage.db import Database
from issuer.storage.rate_limits import RateLimits, compose_limits
from issuer.tokens.access import AccessTokens
from shared.log import dropped_lines
from shared.scrapes import Scrapes
from shared.shortages import Shortages
from shared.steady_time import SteadyTime
from shared.worker_metrics import TakenSlot


@dataclass(frozen=True, slots=True)
class Foundation:
    """What every part stands on."""

    settings: IssuerSettings
    clock: Clock
    database: Database
    metrics: IssuerMetrics
    audit: AuditWriter
    prune_time: Callable[[], int]
    limits: RateLimits


@dataclass(frozen=True, slots=True)
class Exports:
    """What others are told; None: switched off."""

    status_indices: StatusIndices | None
    status_lists: StatusLists | None
    event_outbox: SecurityEventOutbox | None
    event_delivery: EventDelivery | None

    def write_also(self) -> list[WriteAlso]:
        """Return what is written with every revocation."""
        written: list[WriteAlso] = []
        if self.status_indices is not None:
            written.append(self.status_indices.mark_revoked)
        if self.event_outbox is not None:
            written.append(self.event_outbox.write)
        return written


@dataclass(frozen=True, slots=True)
class Issuer:
    """The composed parts."""

    settings: IssuerSettings
    clock: Clock
    database: Database
    metrics: IssuerMetrics
    scrapes: Scrapes
    shortages: Shortages
    audit: AuditParts
    limits: RateLimits
    key_parts: KeyParts
    following: Following
    canary: Canary
    exports: Exports
    feed_credential: FeedCredential
    reloader: Reloader
    access_tokens: AccessTokens
    logout: Logout
    revocations: Revocations
    bulk: BulkRevocation
    sessions: Sessions
    session_list: SessionList
    hashing_pool: HashingPool
    accounts: AccountParts
    login_parts: LoginParts
    password_change: PasswordChange
    password_reset: PasswordReset
    second_factors: SecondFactors
    client_parts: ClientParts

    @property
    def users(self) -> Users:
        """Makes and reads accounts."""
        return self.accounts.users

    @property
    def login(self) -> Login:
        """Logs users in."""
        return self.login_parts.login

    @property
    def clients(self) -> Clients:
        """Makes and keeps clients."""
        return self.client_parts.clients

    @property
    def keys(self) -> KeyStore:
        """The signing keys."""
        return self.key_parts.store

    @property
    def key_rotation(self) -> KeyRotation:
        """Changes the signing keys."""
        return self.key_parts.rotation

    @property
    def feed(self) -> RevocationFeed:
        """The revocation feed."""
        return self.following.feed

    async def close(self) -> None:
        """Give back threads and connections."""
        self.hashing_pool.close()
        if self.exports.event_delivery is not None:
            await self.exports.event_delivery.close()
        await self.scrapes.close()
        await self.database.close()


def compose(
    settings: IssuerSettings,
    *,
    clock: Clock = system_clock,
    elapsed: ElapsedClock = elapsed_clock,
    database: Database | None = None,
    reread: Callable[[], IssuerSettings] = load_settings,
    metrics_slot: TakenSlot | None = None,
) -> Issuer:
    """Build every part; nothing is connected or read yet.

    Args:
        settings: as read at the start.
        clock: gives the time in milliseconds.
        elapsed: gives the seconds that verifiers' leases are measured by.
        database: made from the settings when left out; `Issuer.close` closes it either
            way.
        reread: reads the settings again, when the reloader is asked to.
        metrics_slot: the worker's on the board of all workers; None when it is alone.
    """
    if database is None:
        database = Database(
            settings.database_url,
            pool_size=settings.database_pool_size,
            pool_timeout=settings.database_pool_timeout,
            statement_timeout=settings.database_statement_timeout,
        )
    metrics = IssuerMetrics(metrics_slot)
    prune_time = SteadyTime(partial(seconds, clock), elapsed).now
    audit_parts = compose_audit(
        settings,
        database,
        clock=clock,
        elapsed=elapsed,
        prune_time=prune_time,
        on_waiting=metrics.audit_unlinked,
        find_source=find_source,
    )
    audit = audit_parts.write_event
    limits = compose_limits(settings, database, clock=clock, on_limited=metrics.limited)
    base = Foundation(settings, clock, database, metrics, audit, prune_time, limits)
    key_parts = compose_keys(
        settings, database, clock=clock, audit=audit, on_look=metrics.signing_keys
    )
    keys = key_parts.store
    exports = _compose_exports(base, keys)
    authentication = ClientAuthentication(
        database, clock=clock, note_failure=audit_parts.note_failure
    )
    following = compose_following(
        settings,
        database,
        base.metrics,
        clock=clock,
        elapsed=elapsed,
        prune_time=prune_time,
        also=exports.write_also(),
        tell=[authentication.forget_revoked],
    )
    feed = following.feed
    credential = FeedCredential(settings.feed_token.get_secret_value(), elapsed)
    access_tokens = AccessTokens(
        database,
        keys,
        issuer_url=settings.url,
        audience=settings.audience,
        access_ttl=settings.access_ttl,
        clock=clock,
        status_indices=exports.status_indices,
    )
    logout, session_list, sessions = _compose_sessions(base, access_tokens, feed)
    revocations = Revocations(
        database,
        access_tokens,
        feed,
        key_parts.rotation,
        clock=clock,
        audit=audit,
        quick=QuickRevocation(database, feed, audit_parts.describe_event),
    )
    hasher, pool, times = _compose_hashing(base, key_parts, elapsed)
    accounts = compose_accounts(
        settings,
        database,
        hasher,
        pool,
        access_tokens,
        logout,
        feed,
        clock=clock,
        audit=audit,
    )
    login_parts = _compose_login(base, hasher, pool, times, sessions, elapsed)
    password_change, password_reset = _compose_passwords(
        base, hasher, pool, login_parts, sessions, logout
    )
    shortages = Shortages()
    client_parts = compose_clients(
        settings,
        database,
        authentication,
        access_tokens,
        sessions,
        logout,
        revocations,
        feed,
        _build_password_grant(login_parts.login),
        login_parts.account_proof.prove,
        limits,
        clock=clock,
        audit=audit,
        note_grant=audit_parts.note_grant,
        note_failure=audit_parts.note_failure,
    )
    return Issuer(
        settings=settings,
        clock=clock,
        database=database,
        metrics=base.metrics,
        scrapes=Scrapes(
            metrics.together,
            partial(_update_metrics, metrics, database),
            beside=shortages.look,
        ),
        shortages=shortages,
        audit=audit_parts,
        limits=limits,
        key_parts=key_parts,
        following=following,
        canary=Canary(database, feed, clock=clock, on_sent=base.metrics.canary),
        exports=exports,
        feed_credential=credential,
        reloader=Reloader(
            settings,
            reread,
            credential,
            exports.event_outbox,
            exports.event_delivery,
            count=base.metrics.reload,
        ),
        access_tokens=access_tokens,
        logout=logout,
        revocations=revocations,
        bulk=_compose_bulk(base, revocations, access_tokens, feed),
        sessions=sessions,
        session_list=session_list,
        hashing_pool=pool,
        accounts=accounts,
        login_parts=login_parts,
        password_change=password_change,
        password_reset=password_reset,
        second_factors=_compose_second_factors(base, login_parts),
        client_parts=client_parts,
    )


def _update_metrics(metrics: IssuerMetrics, database: Database) -> None:
    metrics.database_pool(database.measure())
    metrics.dropped_lines(dropped_lines())


def _compose_exports(base: Foundation, keys: KeyStore) -> Exports:
    settings, database, clock = base.settings, base.database, base.clock
    issuer_url, endpoints = settings.url, settings.caep_endpoints
    indices = lists = outbox = delivery = None
    if settings.status_list:
        indices = StatusIndices(
            database, clock=clock, issuer_url=issuer_url, prune_time=base.prune_time
        )
        lists = StatusLists(
            database,
            keys,
            clock=clock,
            issuer_url=issuer_url,
            ttl=settings.status_list_ttl,
        )
    if endpoints:
        outbox = SecurityEventOutbox(endpoints, clock=clock, issuer_url=issuer_url)
        delivery = EventDelivery(
            database,
            keys,
            endpoints,
            clock=clock,
            issuer_url=issuer_url,
            retry_for=settings.caep_retry_for,
            ca_file=settings.ca_file,
            count=base.metrics.security_event,
            on_waiting=base.metrics.security_event_waiting,
        )
    return Exports(indices, lists, outbox, delivery)


def _compose_bulk(
    base: Foundation,
    revocations: Revocations,
    access_tokens: AccessTokens,
    feed: RevocationFeed,
) -> BulkRevocation:
    families = _make_families(base.settings)
    ending = SessionEnding(families, access_tokens, feed)
    rows = BulkRows(ending, normalise_username)
    return BulkRevocation(
        base.database,
        rows,
        revocations,
        access_tokens,
        feed,
        clock=base.clock,
        audit=base.audit,
    )


def _make_families(settings: IssuerSettings) -> RefreshFamilies:
    limits = RotationLimits(settings.refresh_grace, settings.refresh_idle_ttl)
    return RefreshFamilies(settings.refresh_keys, limits)


def _compose_sessions(
    base: Foundation, access_tokens: AccessTokens, feed: RevocationFeed
) -> tuple[Logout, SessionList, Sessions]:
    settings = base.settings
    families = _make_families(settings)
    ending = SessionEnding(families, access_tokens, feed)
    logout = Logout(
        base.database,
        families,
        ending,
        access_tokens,
        feed,
        clock=base.clock,
        audit=base.audit,
    )
    limits = SessionLimits(
        ttl=settings.refresh_ttl,
        idle_ttl=settings.refresh_idle_ttl,
        max_per_user=settings.max_sessions_per_user,
        retention=settings.session_retention,
    )
    session_list = SessionList(
        base.database,
        ending,
        logout,
        feed,
        limits,
        clock=base.clock,
        prune_time=base.prune_time,
        audit=base.audit,
    )
    sessions = Sessions(
        base.database,
        families,
        QuickRotation(base.database, families, base.limits.refreshes),
        access_tokens,
        logout,
        session_list,
        base.limits,
        clock=base.clock,
        audit=base.audit,
        refresh_ttl=settings.refresh_ttl,
        count_refresh=base.metrics.refresh,
    )
    return logout, session_list, sessions


def _compose_hashing(
    base: Foundation, keys: KeyParts, elapsed: ElapsedClock
) -> tuple[PasswordHasher, HashingPool, HashTimes]:
    settings = base.settings
    peppers, cost = settings.password_peppers, settings.bcrypt_cost
    times = HashTimes(bcrypt_work(cost))
    hasher = PasswordHasher(
        peppers,
        cost=cost,
        on_verified=keys.proofs.note,
        elapsed=elapsed,
        on_hashed=times.note,
    )

    def on_change(waiting: int, busy: int) -> None:
        base.metrics.hashing_waiting(waiting)
        base.metrics.hashing_busy(busy)

    pool = HashingPool(
        workers=settings.hash_workers or os.cpu_count() or 1,
        queue=settings.hash_queue,
        on_change=on_change,
    )
    return hasher, pool, times


def _compose_login(
    base: Foundation,
    hasher: PasswordHasher,
    pool: HashingPool,
    times: HashTimes,
    sessions: Sessions,
    elapsed: ElapsedClock,
) -> LoginParts:
    return compose_login(
        base.settings,
        base.database,
        base.metrics,
        hasher,
        pool,
        times,
        sessions,
        clock=base.clock,
        audit=base.audit,
        prune_time=base.prune_time,
        elapsed=elapsed,
    )


def _compose_passwords(
    base: Foundation,
    hasher: PasswordHasher,
    pool: HashingPool,
    login: LoginParts,
    sessions: Sessions,
    logout: Logout,
) -> tuple[PasswordChange, PasswordReset]:
    settings, database = base.settings, base.database
    change = PasswordChange(
        database,
        login.password_proof,
        hasher,
        pool,
        sessions,
        login.completion,
        clock=base.clock,
        audit=base.audit,
        password_min_length=settings.password_min_length,
    )
    reset = PasswordReset(
        database,
        hasher,
        pool,
        logout,
        login.throttling,
        clock=base.clock,
        audit=base.audit,
        password_min_length=settings.password_min_length,
        token_ttl=settings.password_reset_ttl,
    )
    return change, reset


def _compose_second_factors(base: Foundation, login: LoginParts) -> SecondFactors:
    settings = base.settings
    return SecondFactors(
        base.database,
        settings.key_encryption_keys,
        login.codes,
        login.password_proof,
        login.guesses,
        clock=base.clock,
        audit=base.audit,
        issuer_name=urlsplit(settings.url).hostname or settings.url,
    )


def _build_password_grant(login: Login) -> LogIn:
    async def log_in(
        username: str, password: str, caller: Caller, scope: str | None
    ) -> TokenPair:
        # RFC 6749, section 4.3, knows no device.
        return (await login.log_in(username, password, caller, scope=scope)).pair

    return log_in
