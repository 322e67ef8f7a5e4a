"""Login: a user name and a password become a session, or one and the same refusal.

A stranger must not learn who has an account here. Whatever is wrong (no such user,
disabled, empty, over-long, a hash we cannot read), exactly one hash is computed and the
same error is raised (requirement R32). The database is not held while a hash runs.

Whoever must wait after failures (R34) is told so before anything is hashed, by counts
that are the same whether or not there is such an account.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

from sqlalchemy import select, update
from sqlalchemy.ext.asyncio import AsyncSession

from issuer.accounts.hashing_pool import HashingPool, Place
from issuer.accounts.login_challenges import start_challenge
from issuer.accounts.login_completion import LoginCompletion
from issuer.accounts.names import normalise_username
from issuer.accounts.passwords import PasswordHasher
from issuer.accounts.second_factor_codes import SecondFactorCodes
from issuer.accounts.throttle import Attempt, LoginThrottling, Standing
from issuer.acts import Act, AuditWriter, Caller
from issuer.clock import Clock, seconds
from issuer.db import Database
from issuer.errors import (
    InvalidCredentialsError,
    InvalidRequestError,
    SecondFactorRequiredError,
    TooManyRequestsError,
    UnavailableError,
)
from issuer.models import User
from issuer.tokens.sessions import OpenSession, Sessions, TokenPair
from issuer.tokens.subjects import load_subject


@dataclass(frozen=True, slots=True)
class _Account:
    """The account a login is for, as far as there is one.

    Without `stored_hash` the login is refused whatever the password; `user_id` may be
    known all the same, for the record.
    """

    user_id: str | None
    generation: int
    stored_hash: str | None
    refusal: str
    standing: Standing


class Login:
    """Logs users in.

    Args:
        database: where accounts are kept.
        hasher: verifies passwords.
        pool: runs the hasher.
        sessions: answers the session's tokens.
        completion: opens the session.
        throttling: says who has to wait.
        codes: tell whose login needs a second factor.
        clock: gives the time in milliseconds.
        audit: records each attempt.
        count_login: told the outcome of each attempt in one word.
    """

    def __init__(
        self,
        database: Database,
        hasher: PasswordHasher,
        pool: HashingPool,
        sessions: Sessions,
        *,
        completion: LoginCompletion,
        throttling: LoginThrottling,
        codes: SecondFactorCodes,
        clock: Clock,
        audit: AuditWriter,
        count_login: Callable[[str], None],
    ) -> None:
        self._database = database
        self._hasher = hasher
        self._pool = pool
        self._sessions = sessions
        self._completion = completion
        self._throttling = throttling
        self._codes = codes
        self._clock = clock
        self._audit = audit
        self._count_login = count_login

    async def log_in(self, username: str, password: str, caller: Caller) -> TokenPair:
        """Return the tokens of a new session.

        Args:
            username: as typed.
            password: as typed.
            caller: where it comes from.

        Raises:
            InvalidCredentialsError: when they do not belong to an enabled user; the
                attempt is recorded and counted by then.
            SecondFactorRequiredError: when they do, and the user's code is to follow.
            TooManyRequestsError: when it has to wait after failures.
            UnavailableError: when the hashing queue is full or the database is away.
        """
        try:
            with self._pool.reserve() as place:
                account, attempt, new_hash = await self._prove(
                    place, username, password, caller
                )
        except TooManyRequestsError:
            self._count_login("throttled")
            raise
        except UnavailableError:
            self._count_login("overloaded")
            raise
        async with self._database.write() as db:
            outcome = await self._open(db, account, attempt, new_hash, caller)
        if outcome is None:
            await self._refuse(account, attempt, "changed meanwhile", caller)
            raise InvalidCredentialsError(detail="changed meanwhile")
        if isinstance(outcome, SecondFactorRequiredError):
            self._count_login("second_factor_required")
            raise outcome
        self._count_login("succeeded")
        return await self._sessions.answer(outcome)

    async def _prove(
        self, place: Place, username: str, password: str, caller: Caller
    ) -> tuple[_Account, Attempt, str | None]:
        """Return the account whose password it is, or raise; a place is held."""
        account = await self._find(username, caller)
        attempt = await self._throttling.admit(account.standing, seconds(self._clock))
        try:
            new_hash = await place.run(partial(self._verify, account, password))
        except InvalidCredentialsError as error:
            await self._refuse(account, attempt, error.detail, caller)
            raise
        return account, attempt, new_hash

    async def _find(self, username: str, caller: Caller) -> _Account:
        try:
            # Blanks around a name were pasted with it; no account's name has any.
            name, refusal = normalise_username(username.strip()), "unknown user"
        except InvalidRequestError:
            # No account has the empty name: the same is asked for every name.
            name, refusal = "", "malformed user name"
        async with self._database.read() as db:
            standing = await self._throttling.look(
                db,
                name,
                typed=username,
                address=caller.address,
                now=seconds(self._clock),
            )
            row = (
                await db.execute(
                    select(
                        User.id, User.generation, User.password_hash, User.disabled_at
                    ).where(User.username == name)
                )
            ).one_or_none()
        if row is None:
            return _Account(None, 0, None, refusal, standing)
        if row.disabled_at is not None:
            return _Account(row.id, row.generation, None, "disabled user", standing)
        return _Account(row.id, row.generation, row.password_hash, "", standing)

    def _verify(self, account: _Account, password: str) -> str | None:
        """Runs on a thread of the pool; returns a new hash when parameters changed."""
        if account.stored_hash is None:
            self._hasher.refuse(detail=account.refusal)
        self._hasher.verify(account.stored_hash, password)
        if not self._hasher.needs_rehash(account.stored_hash):
            return None
        return self._hasher.hash(password)

    async def _open(
        self,
        db: AsyncSession,
        account: _Account,
        attempt: Attempt,
        new_hash: str | None,
        caller: Caller,
    ) -> OpenSession | SecondFactorRequiredError | None:
        """Open the session, unless the account is not what was verified any more.

        The user's row is locked, so a logout-everywhere or a change of password comes
        either before, and is seen here, or after, and sees this session.
        """
        user_id = account.user_id or ""
        if new_hash is not None:
            await db.execute(
                update(User)
                .where(User.id == user_id, User.password_hash == account.stored_hash)
                .values(password_hash=new_hash)
                .execution_options(synchronize_session=False)
            )
        subject = await load_subject(db, user_id, is_locked=True)
        if (
            subject is None
            or subject.is_disabled
            or subject.generation != account.generation
        ):
            return None
        now = seconds(self._clock)
        if await self._codes.is_enrolled(db, user_id):
            await self._throttling.succeed(db, attempt)
            return await start_challenge(db, subject, now)
        return await self._completion.complete(
            db, subject, attempt, caller, now=now, facts={}
        )

    async def _refuse(
        self, account: _Account, attempt: Attempt, reason: str, caller: Caller
    ) -> None:
        """Record and count it. The name that was typed is not: it may be a password."""
        async with self._database.write() as db:
            slowed = await self._throttling.fail(db, attempt, seconds(self._clock))
            facts = {"reason": reason}
            if slowed:
                facts["slowed"] = ", ".join(slowed)
            act = Act(
                "login.failed",
                actor="unknown",
                subject=account.user_id or "unknown",
                facts=facts,
            )
            await self._audit(db, act, caller)
        self._count_login(reason.replace(" ", "_"))
