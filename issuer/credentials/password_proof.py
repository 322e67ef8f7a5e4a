"""Verifies the password again, for acts that a stolen access token must not allow."""

from __future__ import annotations

from functools import partial

from sqlalchemy.ext.asyncio import AsyncSession

from issuer.acts import Act, Caller
from issuer.clock import seconds
from issuer.credentials.failure_counts import LoginAttempt
from issuer.credentials.throttle import LoginThrottling
from issuer.errors import (
    ConflictError,
    InvalidCredentialsError,
    UnauthenticatedError,
)
from issuer.foundation import Foundation
from issuer.hashing.hashing_pool import HashingPool
from issuer.hashing.passwords import PasswordHasher
from issuer.http.authorization.principals import Principal
from issuer.sessions.logout import require_person
from issuer.storage.database_attempts import retry_conflicts
from issuer.storage.tables.users import User
from issuer.tokens.subjects import Subject, load_subject


class PasswordProof:
    """Verifies the password of signed-in users; guesses count as at a login.

    Args:
        base: gives the database, the clock and the audit.
        hasher: verifies passwords.
        pool: runs the hasher.
        throttling: counts failures.
    """

    def __init__(
        self,
        base: Foundation,
        hasher: PasswordHasher,
        pool: HashingPool,
        throttling: LoginThrottling,
    ) -> None:
        self._database = base.database
        self._hasher = hasher
        self._pool = pool
        self._throttling = throttling
        self._clock = base.clock
        self._audit = base.audit

    async def prove(self, principal: Principal, password: str, caller: Caller) -> User:
        """Verify the password; return the user as read before that.

        Raises:
            ForbiddenError: when the access token is a client's own.
            InvalidCredentialsError: when the password is wrong; the failure has been
                recorded and counted.
            TooManyRequestsError: while the user has to wait after failures.
            UnauthenticatedError: when the user has been deleted.
            UnavailableError: when the hashing queue is full or the database is away.
        """
        require_person(principal)
        now = seconds(self._clock)
        with self._pool.reserve() as place:
            async with self._database.read() as db:
                user = await db.get(User, principal.subject)
                if user is None:
                    raise UnauthenticatedError(detail="the user is gone")
                # The session counts as a known device: a stranger's failures must not
                # prevent its owner from changing the password.
                recorded = await self._throttling.look(
                    db,
                    user.username,
                    address=caller.address,
                    now=now,
                    device=principal.sid,
                )
            attempt = await self._throttling.admit(recorded, now)
            verify = partial(self._hasher.verify, user.password_hash, password)
            try:
                await place.run(verify)
            except InvalidCredentialsError as error:
                await self._record_failure(user, attempt, error.detail, caller, now)
                raise

        await retry_conflicts(lambda: self._take_back(attempt))
        return user

    async def _take_back(self, attempt: LoginAttempt) -> None:
        async with self._database.write() as db:
            await self._throttling.succeed(db, attempt)

    async def _record_failure(
        self, user: User, attempt: LoginAttempt, reason: str, caller: Caller, now: int
    ) -> None:
        act = Act("password.proof_failed", user.id, user.id, {"reason": reason})
        async with self._database.write() as db:
            await self._throttling.fail(db, attempt, now)
            await self._audit(db, act, caller)


async def hold_proved(db: AsyncSession, user: User) -> Subject:
    """Lock the user after a right password, and return it.

    Args:
        db: a write transaction.
        user: from `PasswordProof.prove`.

    Raises:
        ConflictError: when the account has changed since: a new password, a logout
            everywhere, a lock.
    """
    subject = await load_subject(db, user.id, is_locked=True)
    if subject is None or subject.is_disabled or subject.generation != user.generation:
        raise ConflictError("The account was changed at the same time.")
    return subject
