"""Everything by which people prove who they are, put together."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

from issuer.acts import AuditWriter
from issuer.clock import Clock, ElapsedClock, elapsed_clock
from issuer.credentials.account_proof import AccountProof
from issuer.credentials.code_guesses import CodeGuesses
from issuer.credentials.password_proof import PasswordProof
from issuer.credentials.second_factor_codes import SecondFactorCodes
from issuer.credentials.throttle import LoginThrottling, ThrottleLimits
from issuer.hashing.hash_times import HashTimes
from issuer.hashing.hashing_pool import HashingPool
from issuer.hashing.passwords import PasswordHasher
from issuer.hashing.stored_work import CostliestHashes
from issuer.http.forwarded_for import trust_proxies
from issuer.login.device_tokens import DeviceTokens
from issuer.login.login import Login, Waits
from issuer.login.login_completion import LoginCompletion
from issuer.login.login_upkeep import LoginUpkeep
from issuer.login.second_factor_login import SecondFactorLogin
from issuer.metrics import IssuerMetrics
from issuer.sessions.sessions import Sessions
from issuer.settings.issuer_settings import IssuerSettings
from issuer.storage.db import Database


@dataclass(frozen=True, slots=True)
class LoginParts:
    """The parts; each tells in its own file what it is for."""

    login: Login
    second_factor_login: SecondFactorLogin
    codes: SecondFactorCodes
    guesses: CodeGuesses
    password_proof: PasswordProof
    account_proof: AccountProof
    throttling: LoginThrottling
    completion: LoginCompletion
    upkeep: LoginUpkeep
    costliest: CostliestHashes


def compose_login(
    settings: IssuerSettings,
    database: Database,
    metrics: IssuerMetrics,
    hasher: PasswordHasher,
    pool: HashingPool,
    times: HashTimes,
    sessions: Sessions,
    *,
    clock: Clock,
    audit: AuditWriter,
    prune_time: Callable[[], int] | None = None,
    elapsed: ElapsedClock = elapsed_clock,
    sleep: Callable[[float], Awaitable[object]] = asyncio.sleep,
) -> LoginParts:
    """Return the parts, told of each other.

    Args:
        settings: as read at the start.
        database: where accounts are kept.
        metrics: count logins.
        hasher: hashes passwords.
        pool: runs the hasher.
        times: know what hashes take here; the hasher tells them.
        sessions: opens sessions.
        clock: gives the time in milliseconds.
        audit: records each act with the act.
        prune_time: gives the Unix seconds to prune by; None: the clock's.
        elapsed: gives the seconds by which hashes are timed.
        sleep: waits so many seconds.
    """
    limits = ThrottleLimits(
        settings.login_free_failures,
        settings.login_source_free_failures,
        settings.login_max_delay,
    )
    throttling = LoginThrottling(
        database,
        settings.password_peppers.current,
        limits,
        trust_proxies(settings.trusted_proxies),
    )
    devices = DeviceTokens(settings.refresh_keys, settings.device_token_ttl)
    completion = LoginCompletion(sessions, devices, throttling, audit)
    codes = SecondFactorCodes(settings.key_encryption_keys)
    costliest = CostliestHashes(database, hasher, pool, times, clock=clock)
    proof = PasswordProof(database, hasher, pool, throttling, clock=clock, audit=audit)
    guesses = CodeGuesses(database, throttling, clock=clock, audit=audit)
    return LoginParts(
        login=Login(
            database,
            hasher,
            pool,
            waits=Waits(times, elapsed=elapsed, sleep=sleep),
            costliest=costliest,
            completion=completion,
            devices=devices,
            throttling=throttling,
            codes=codes,
            clock=clock,
            audit=audit,
            count_login=metrics.login,
        ),
        second_factor_login=SecondFactorLogin(
            database,
            codes,
            completion=completion,
            devices=devices,
            throttling=throttling,
            clock=clock,
            audit=audit,
            count_login=metrics.login,
        ),
        codes=codes,
        guesses=guesses,
        password_proof=proof,
        account_proof=AccountProof(database, proof, codes, guesses, clock=clock),
        throttling=throttling,
        completion=completion,
        upkeep=LoginUpkeep(
            database,
            clock=clock,
            prune_time=prune_time,
            password_reset_ttl=settings.password_reset_ttl,
        ),
        costliest=costliest,
    )
