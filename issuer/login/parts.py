"""Composes the login, and what other packages verify a password or a code with.

`LoginParts.__init__` is over 40 lines: it makes every part once, in order.
"""

import asyncio
from collections.abc import Awaitable, Callable

from issuer.credentials.account_proof import AccountProof
from issuer.credentials.code_guesses import CodeGuesses
from issuer.credentials.password_proof import PasswordProof
from issuer.credentials.second_factor_codes import SecondFactorCodes
from issuer.credentials.throttle import LoginThrottling
from issuer.foundation import BackgroundTask, Foundation, Package
from issuer.hashing.parts import HashingParts
from issuer.hashing.stored_work import CostliestHashes
from issuer.login import login_routes
from issuer.login.attempts import LoginAttempts
from issuer.login.device_tokens import DeviceTokens
from issuer.login.login import FailureDelay, Login
from issuer.login.login_completion import LoginCompletion
from issuer.login.login_upkeep import LoginUpkeep
from issuer.login.second_factor_login import SecondFactorLogin
from issuer.sessions.parts import SessionsParts


class LoginParts(Package):
    """The parts of the login; `sleep` waits a number of seconds."""

    hot_routers = (login_routes.router,)

    def __init__(
        self,
        base: Foundation,
        hashing: HashingParts,
        sessions: SessionsParts,
        sleep: Callable[[float], Awaitable[object]] = asyncio.sleep,
    ) -> None:
        settings, hasher, pool = base.settings, hashing.hasher, hashing.pool
        waits = FailureDelay(hashing.times, elapsed=base.elapsed, sleep=sleep)
        self.throttling = throttling = LoginThrottling(base.database, settings)
        devices = DeviceTokens(settings.refresh_keys, settings.device_token_ttl)
        attempts = LoginAttempts(base, devices, throttling)
        self.codes = codes = SecondFactorCodes(settings.key_encryption_keys)
        self.guesses = CodeGuesses(base, throttling)
        self.password_proof = PasswordProof(base, hasher, pool, throttling)
        self.account_proof = AccountProof(
            base, self.password_proof, codes, self.guesses
        )
        self.completion = completion = LoginCompletion(
            sessions.sessions, devices, throttling, base.audit
        )
        self.costliest = CostliestHashes(base, hasher, pool, hashing.times)
        self.login = Login(
            base,
            hasher,
            pool,
            waits=waits,
            costliest=self.costliest,
            attempts=attempts,
            completion=completion,
            throttling=throttling,
            codes=codes,
        )
        self.second_factor_login = SecondFactorLogin(
            base, codes, attempts, completion, throttling
        )
        self.upkeep = LoginUpkeep(base)
        self.provides = (self.login, self.second_factor_login, self.password_proof)
        self.tasks = (
            BackgroundTask(self.upkeep.prune, every=60),
            BackgroundTask(self.costliest.refresh, every=60),
        )
