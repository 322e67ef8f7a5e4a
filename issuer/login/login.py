"""Login: a user name and a password lead to a session, or to the same refusal.

A stranger must not learn which accounts exist. For every cause (unknown or disabled
user, empty or over-long password, unreadable hash) exactly one hash is computed, the
same error is raised, and the answer takes the same time (requirement R32): the
difference to the costliest stored hash is waited for. The wait holds neither a thread
nor a connection, and comes last, after the failure is recorded: the caller may
disconnect during it.

A wait after failures (R34) is answered before the hash, from counts that do not depend
on whether the account exists.

`Login.log_in` is over 40 lines: it documents its arguments and errors.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from functools import partial

from sqlalchemy import select, update
from sqlalchemy.ext.asyncio import AsyncSession

from issuer.accounts.names import normalise_username
from issuer.acts import Act, Caller
from issuer.clock import ElapsedClock, elapsed_clock, seconds
from issuer.credentials.failure_counts import FailureCounts, LoginAttempt
from issuer.credentials.second_factor_codes import SecondFactorCodes
from issuer.credentials.throttle import LoginThrottling
from issuer.errors import (
    InvalidCredentialsError,
    InvalidRequestError,
    InvalidScopeError,
    SecondFactorRequiredError,
    UnavailableError,
)
from issuer.foundation import Foundation
from issuer.hashing.hash_times import HashTimes
from issuer.hashing.hash_work import Work
from issuer.hashing.hashing_pool import HashingPool
from issuer.hashing.passwords import PasswordHasher
from issuer.hashing.stored_work import CostliestHashes
from issuer.http.authorization.login_methods import BY_PASSWORD
from issuer.http.authorization.scopes import narrow_scope, parse_scope
from issuer.login.attempts import KnownUser, LoginAttempts
from issuer.login.login_challenges import start_challenge
from issuer.login.login_completion import LoggedIn, LoginCompletion
from issuer.sessions.open_sessions import OpenSession
from issuer.storage.database_attempts import retry_conflicts
from issuer.storage.tables.users import User
from issuer.tokens.subjects import Subject, load_subject


@dataclass(frozen=True, slots=True)
class _Account:
    """The account of a login, if it exists.

    Without `stored_hash` the login is refused for any password; `user_id` may still be
    known, for the audit log.
    """

    user_id: str | None
    generation: int
    stored_hash: str | None
    refusal: str
    recorded: FailureCounts


@dataclass(frozen=True, slots=True)
class _Verdict:
    """The result of the hash.

    Attributes:
        refusal: the cause of a failed login; None when the password is right.
        took: seconds of the verification.
        new_hash: to store, if the parameters have changed.
    """

    refusal: InvalidCredentialsError | None
    took: float
    new_hash: str | None = None


class FailureDelay:
    """The wait before a failed login is answered.

    Args:
        times: give its length.
        elapsed: gives the seconds that time the hashes.
        sleep: waits a number of seconds; ends when cancelled.
    """

    def __init__(
        self,
        times: HashTimes,
        *,
        elapsed: ElapsedClock = elapsed_clock,
        sleep: Callable[[float], Awaitable[object]] = asyncio.sleep,
    ) -> None:
        self._times = times
        self.elapsed = elapsed
        self._sleep = sleep

    async def end(self, took: float) -> None:
        """Wait for the difference between this hash and the costliest."""
        remaining = self._times.remaining(took)
        if remaining > 0:
            await self._sleep(remaining)


#: None: the account has changed since the verification.
_Outcome = OpenSession | SecondFactorRequiredError | InvalidScopeError | None


class Login:
    """Logs users in.

    Args:
        base: gives the database, the clock and the audit.
        hasher: verifies passwords.
        pool: runs the hasher.
        waits: delay the answer of a failed login.
        costliest: gets stored hashes that are costlier than the known ones.
        completion: opens the session and returns its tokens.
        attempts: admits attempts and counts their outcomes.
        throttling: counts failures.
        codes: finds out whether a user has a second factor.
    """

    def __init__(
        self,
        base: Foundation,
        hasher: PasswordHasher,
        pool: HashingPool,
        *,
        waits: FailureDelay,
        costliest: CostliestHashes,
        attempts: LoginAttempts,
        completion: LoginCompletion,
        throttling: LoginThrottling,
        codes: SecondFactorCodes,
    ) -> None:
        self._database = base.database
        self._hasher = hasher
        self._pool = pool
        self._waits = waits
        self._costliest = costliest
        self._completion = completion
        self._attempts = attempts
        self._throttling = throttling
        self._codes = codes
        self._clock = base.clock
        self._audit = base.audit

    async def log_in(
        self,
        username: str,
        password: str,
        caller: Caller,
        *,
        device_token: str | None = None,
        scope: str | None = None,
    ) -> LoggedIn:
        """Return the tokens of a new session.

        Args:
            username: as typed.
            password: as typed.
            caller: origin of the request.
            device_token: from an earlier login on this device; an invalid one counts as
                none.
            scope: the requested part of the user's scope, space-delimited; None
                requests all of it.

        Raises:
            InvalidCredentialsError: when the two do not belong to an enabled user; the
                attempt has been recorded and counted.
            InvalidScopeError: when the scope is malformed, or the password is right and
                the scope exceeds the user's.
            SecondFactorRequiredError: when the password is right and a code must
                follow.
            TooManyRequestsError: while the caller has to wait after failures, or when
                the user has opened too many sessions recently.
            UnavailableError: when the hashing queue is full or the database is away.
        """
        wanted = None if scope is None else parse_scope(scope)
        account, attempt, verdict = await self._try(
            username, password, caller, device_token
        )
        if verdict.refusal is not None:
            reason = verdict.refusal.detail
            await self._refuse(account, attempt, reason, caller, verdict.took)
            raise verdict.refusal

        async def open_session() -> _Outcome:
            async with self._database.write() as db:
                if verdict.new_hash is not None:
                    await self._store(db, account, verdict.new_hash)
                return await self._open(db, account, attempt, wanted, caller)

        outcome = await self._attempts.finish(open_session, attempt)
        if outcome is None:
            reason = "changed meanwhile"
            await self._refuse(account, attempt, reason, caller, verdict.took)
            raise InvalidCredentialsError(detail=reason)
        return await self._completion.answer(self._require_open(outcome))

    def _require_open(
        self, outcome: OpenSession | SecondFactorRequiredError | InvalidScopeError
    ) -> OpenSession:
        """Count the outcome of a right password; raise it when it is an error."""
        if isinstance(outcome, SecondFactorRequiredError):
            self._attempts.count("second_factor_required")
            raise outcome
        if isinstance(outcome, InvalidScopeError):
            self._attempts.count("scope_refused")
            raise outcome
        self._attempts.count("succeeded")
        return outcome

    async def _try(
        self, username: str, password: str, caller: Caller, device_token: str | None
    ) -> tuple[_Account, LoginAttempt, _Verdict]:
        """Hold a place in the pool, count the attempt, and verify the password."""
        try:
            with self._pool.reserve() as place:
                account = await self._find(username, caller, device_token)
                attempt = await self._attempts.admit(
                    account.recorded, seconds(self._clock)
                )
                verdict = await place.run(partial(self._verify, account, password))
        except UnavailableError:
            self._attempts.count("overloaded")
            raise
        return account, attempt, verdict

    async def _find(
        self, username: str, caller: Caller, device_token: str | None
    ) -> _Account:
        try:
            # Blanks around a name come from pasting; no account's name has any.
            name, refusal = normalise_username(username.strip()), "unknown user"
        except InvalidRequestError:
            # No account has the empty name, so the query is the same for every name.
            name, refusal = "", "malformed user name"
        now = seconds(self._clock)
        async with self._database.read() as db:
            row = (
                await db.execute(
                    select(
                        User.id, User.generation, User.password_hash, User.disabled_at
                    ).where(User.username == name)
                )
            ).one_or_none()
            user = KnownUser(row.id, row.generation) if row else KnownUser(None, 0)
            recorded = await self._attempts.look(
                db, name, user, caller, device_token, now, typed=username
            )
        if row is None:
            return _Account(None, 0, None, refusal, recorded)
        if row.disabled_at is not None:
            return _Account(row.id, row.generation, None, "disabled user", recorded)
        return _Account(row.id, row.generation, row.password_hash, "", recorded)

    def _verify(self, account: _Account, password: str) -> _Verdict:
        """Verify on a pool thread, and hash again if the parameters have changed."""
        begun = self._waits.elapsed()
        try:
            if account.stored_hash is None:
                self._hasher.refuse(detail=account.refusal)
            self._hasher.verify(account.stored_hash, password)
        except InvalidCredentialsError as error:
            return _Verdict(error, self._waits.elapsed() - begun)
        took = self._waits.elapsed() - begun
        if not self._hasher.needs_rehash(account.stored_hash):
            return _Verdict(None, took)
        return _Verdict(None, took, self._hasher.hash(password))

    async def _store(self, db: AsyncSession, account: _Account, new_hash: str) -> None:
        await db.execute(
            update(User)
            .where(
                User.id == account.user_id, User.password_hash == account.stored_hash
            )
            .values(password_hash=new_hash)
            .execution_options(synchronize_session=False)
        )

    async def _open(
        self,
        db: AsyncSession,
        account: _Account,
        attempt: LoginAttempt,
        wanted: frozenset[str] | None,
        caller: Caller,
    ) -> _Outcome:
        """Open the session, unless the account has changed since the verification.

        The user's row is locked: a logout everywhere or a change of password either
        came before and is seen here, or comes after and sees this session. An error
        that must be committed first is returned, not raised.
        """
        user_id = account.user_id or ""
        subject = await load_subject(db, user_id, is_locked=True)
        if subject is None or not _is_as_verified(subject, account):
            return None
        now = seconds(self._clock)
        try:
            scope = narrow_scope(wanted, subject.scope)
        except InvalidScopeError as error:
            # The password was right, so this is not a failure.
            await self._throttling.succeed(db, attempt)
            return error
        if await self._codes.is_enrolled(db, user_id):
            await self._throttling.succeed(db, attempt)
            return await start_challenge(db, subject, scope, now)
        return await self._completion.complete(
            db,
            subject,
            attempt,
            caller,
            scope=scope,
            amr=BY_PASSWORD,
            now=now,
            facts={},
        )

    async def _refuse(
        self,
        account: _Account,
        attempt: LoginAttempt,
        reason: str,
        caller: Caller,
        took: float,
    ) -> None:
        """Record and count a failure, then wait until its duration reveals nothing.

        The typed name is not recorded: it may be a password.
        """

        async def record() -> None:
            async with self._database.write() as db:
                slowed = await self._throttling.fail(db, attempt, seconds(self._clock))
                facts = {"reason": reason}
                if slowed:
                    facts["slowed"] = ", ".join(slowed)
                subject = account.user_id or "unknown"
                act = Act("login.failed", "unknown", subject, facts)
                await self._audit(db, act, caller)
                await self._costliest.note(db, self._read_work(account))

        await retry_conflicts(record)
        self._attempts.count(reason.replace(" ", "_"))
        await self._waits.end(took)

    def _read_work(self, account: _Account) -> Work | None:
        if account.stored_hash is None:
            return None
        return self._hasher.read_work(account.stored_hash)


def _is_as_verified(subject: Subject, account: _Account) -> bool:
    return not subject.is_disabled and subject.generation == account.generation
