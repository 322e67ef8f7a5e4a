"""Guesses of second-factor codes by signed-in users."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from sqlalchemy.ext.asyncio import AsyncSession

from issuer.acts import Act, Caller
from issuer.clock import seconds
from issuer.credentials.failure_counts import LoginAttempt, Proof
from issuer.credentials.throttle import LoginThrottling
from issuer.errors import InvalidSecondFactorError
from issuer.foundation import Foundation
from issuer.http.authorization.principals import Principal


class CodeGuesses:
    """Counts and records guesses, together with those of logins.

    Args:
        base: gives the database, the clock and the audit.
        throttling: counts guesses.
    """

    def __init__(self, base: Foundation, throttling: LoginThrottling) -> None:
        self._database = base.database
        self._throttling = throttling
        self._clock = base.clock
        self._audit = base.audit

    @asynccontextmanager
    async def guess(
        self, principal: Principal, caller: Caller
    ) -> AsyncIterator[LoginAttempt]:
        """Count a guess before the block verifies it; record a wrong one.

        The session counts as a known device: wrong codes at logins do not delay it.

        Raises:
            TooManyRequestsError: while the user has to wait after failures.
            UnavailableError: when the database is away.
        """
        now = seconds(self._clock)
        async with self._database.read() as db:
            recorded = await self._throttling.look(
                db,
                principal.username or "",
                address=caller.address,
                now=now,
                proof=Proof.CODE,
                device=principal.sid,
            )
        attempt = await self._throttling.admit(recorded, now)
        try:
            yield attempt
        except InvalidSecondFactorError as error:
            act = Act(
                "second_factor.code_refused",
                principal.subject,
                principal.subject,
                {"reason": error.detail},
            )
            async with self._database.write() as db:
                await self._throttling.fail(db, attempt, now)
                await self._audit(db, act, caller)
            raise

    async def succeed(self, db: AsyncSession, attempt: LoginAttempt) -> None:
        """Delete the failures before this right guess."""
        await self._throttling.succeed(db, attempt)
