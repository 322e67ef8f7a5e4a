"""Attempts at a login: admitted after their wait, counted, and carried to their end."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import NamedTuple, TypeVar

from sqlalchemy.ext.asyncio import AsyncSession

from issuer.acts import Caller
from issuer.credentials.failure_counts import FailureCounts, LoginAttempt, Proof
from issuer.credentials.throttle import LoginThrottling
from issuer.errors import TooManyRequestsError
from issuer.foundation import Foundation
from issuer.login.device_tokens import DeviceTokens
from issuer.storage.database_attempts import retry_conflicts

_Outcome = TypeVar("_Outcome")


class KnownUser(NamedTuple):
    """The user of an attempt, if it exists: a device token is bound to both."""

    user_id: str | None
    generation: int


class LoginAttempts:
    """Admits attempts at a login and counts their outcomes.

    Args:
        base: gives the database and counts the outcomes.
        devices: recognise known devices.
        throttling: counts failures and computes waits.
    """

    def __init__(
        self, base: Foundation, devices: DeviceTokens, throttling: LoginThrottling
    ) -> None:
        self._database = base.database
        #: Called with the outcome of each attempt in one word.
        self.count = base.metrics.login
        self._devices = devices
        self._throttling = throttling

    async def look(
        self,
        db: AsyncSession,
        username: str,
        user: KnownUser,
        caller: Caller,
        device_token: str | None,
        now: int,
        *,
        typed: str | None = None,
        proof: Proof = Proof.PASSWORD,
    ) -> FailureCounts:
        """Return the failures that count for an attempt.

        Args:
            db: reads the counts.
            username: in normal form.
            user: the user with this name, if it exists.
            caller: origin of the request.
            device_token: from an earlier login on this device; an invalid one counts as
                none.
            now: Unix seconds.
            typed: the name as typed.
            proof: the kind of secret.
        """
        device = self._devices.recognise(
            device_token, user.user_id, user.generation, now
        )
        return await self._throttling.look(
            db,
            username,
            typed=typed,
            address=caller.address,
            now=now,
            proof=proof,
            device=device,
        )

    async def admit(self, recorded: FailureCounts, now: int) -> LoginAttempt:
        """Count an attempt before its proof is checked, and return it.

        Raises:
            TooManyRequestsError: while the caller has to wait after failures.
        """
        try:
            return await self._throttling.admit(recorded, now)
        except TooManyRequestsError:
            self.count("throttled")
            raise

    async def finish(
        self, step: Callable[[], Awaitable[_Outcome]], attempt: LoginAttempt
    ) -> _Outcome:
        """Repeat the last step after a conflict: the attempt is counted already.

        Raises:
            TooManyRequestsError: when the user has opened too many sessions recently.
        """
        try:
            return await retry_conflicts(step)
        except TooManyRequestsError:
            # The proof was right, so this is not a failure. A code is not spent.
            async with self._database.write() as db:
                await self._throttling.succeed(db, attempt)
            self.count("limited")
            raise
