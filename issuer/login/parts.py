"""Composes the login, and what it shares with all who ask for a password or a code."""

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

from issuer.credentials.account_proof import AccountProof
from issuer.credentials.code_guesses import CodeGuesses
from issuer.credentials.password_proof import PasswordProof
from issuer.credentials.second_factor_codes import SecondFactorCodes
from issuer.credentials.throttle import LoginThrottling, ThrottleLimits
from issuer.foundation import BackgroundTask, Foundation, Package
from issuer.hashing.parts import HashingParts
from issuer.hashing.stored_work import CostliestHashes
from issuer.http.forwarded_for import trust_proxies
from issuer.login import login_routes
from issuer.login.device_tokens import DeviceTokens
from issuer.login.login import FailureDelay, Login
from issuer.login.login_completion import LoginCompletion
from issuer.login.login_upkeep import LoginUpkeep
from issuer.login.second_factor_login import SecondFactorLogin
from issuer.sessions.parts import SessionsParts


@dataclass(frozen=True, slots=True)
class LoginParts(Package):
    """The parts of the login."""

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


def compose(
    base: Foundation,
    hashing: HashingParts,
    sessions: SessionsParts,
    sleep: Callable[[float], Awaitable[object]] = asyncio.sleep,
) -> LoginParts:
    """Return the parts; `sleep` waits so many seconds."""
    settings, database, clock, audit = (
        base.settings,
        base.database,
        base.clock,
        base.audit,
    )
    hasher, pool, count_login = hashing.hasher, hashing.pool, base.metrics.login
    limits = ThrottleLimits(
        settings.login_free_failures,
        settings.login_source_free_failures,
        settings.login_max_delay,
    )
    is_proxy, pepper = (
        trust_proxies(settings.trusted_proxies),
        settings.password_peppers.current,
    )
    throttling = LoginThrottling(database, pepper, limits, is_proxy)
    devices = DeviceTokens(settings.refresh_keys, settings.device_token_ttl)
    completion = LoginCompletion(sessions.sessions, devices, throttling, audit)
    codes = SecondFactorCodes(settings.key_encryption_keys)
    costliest = CostliestHashes(database, hasher, pool, hashing.times, clock=clock)
    proof = PasswordProof(database, hasher, pool, throttling, clock=clock, audit=audit)
    guesses = CodeGuesses(database, throttling, clock=clock, audit=audit)
    login = Login(
        database,
        hasher,
        pool,
        waits=FailureDelay(hashing.times, elapsed=base.elapsed, sleep=sleep),
        costliest=costliest,
        completion=completion,
        devices=devices,
        throttling=throttling,
        codes=codes,
        clock=clock,
        audit=audit,
        count_login=count_login,
    )
    second_factor_login = SecondFactorLogin(
        database,
        codes,
        completion=completion,
        devices=devices,
        throttling=throttling,
        clock=clock,
        audit=audit,
        count_login=count_login,
    )
    upkeep = LoginUpkeep(
        database,
        clock=clock,
        prune_time=base.prune_time,
        password_reset_ttl=settings.password_reset_ttl,
    )
    return LoginParts(
        login,
        second_factor_login,
        codes,
        guesses,
        proof,
        AccountProof(database, proof, codes, guesses, clock=clock),
        throttling,
        completion,
        upkeep,
        costliest,
        hot_routers=(login_routes.router,),
        provides=(login, second_factor_login, proof),
        tasks=(
            BackgroundTask(upkeep.prune, every=60),
            BackgroundTask(costliest.refresh, every=60),
        ),
    )
