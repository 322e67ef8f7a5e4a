"""Login: a user name and a password become a session, or one and the same refusal.

A stranger must not learn who has an account here. Whatever is wrong (no such user,
disabled, empty, over-long, a hash we cannot read), exactly one hash is computed and the
same error is raised (requirement R32). The database is not held while a hash runs.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

from sqlalchemy import select, update
from sqlalchemy.ext.asyncio import AsyncSession

from issuer.accounts.hashing_pool import HashingPool
from issuer.accounts.names import normalise_username
from issuer.accounts.passwords import PasswordHasher
from issuer.acts import Act, AuditWriter, Caller
from issuer.db import Database
from issuer.errors import (
    InvalidCredentialsError,
    InvalidRequestError,
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


class Login:
    """Logs users in.

    Args:
        database: where accounts are kept.
        hasher: verifies passwords.
        pool: runs the hasher.
        sessions: opens the session.
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
        audit: AuditWriter,
        count_login: Callable[[str], None],
    ) -> None:
        self._database = database
        self._hasher = hasher
        self._pool = pool
        self._sessions = sessions
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
                attempt is recorded by then.
            UnavailableError: when the hashing queue is full or the database is away.
        """
        account = await self._find(username)
        try:
            new_hash = await self._pool.run(partial(self._verify, account, password))
        except InvalidCredentialsError as error:
            await self._refuse(account, error.detail, caller)
            raise
        except UnavailableError:
            self._count_login("overloaded")
            raise
        async with self._database.write() as db:
            session = await self._open(db, account, new_hash, caller)
        if session is None:
            await self._refuse(account, "changed meanwhile", caller)
            raise InvalidCredentialsError(detail="changed meanwhile")
        self._count_login("succeeded")
        return await self._sessions.answer(session)

    async def _find(self, username: str) -> _Account:
        try:
            name = normalise_username(username)
        except InvalidRequestError:
            return _Account(None, 0, None, "malformed user name")
        async with self._database.read() as db:
            row = (
                await db.execute(
                    select(
                        User.id, User.generation, User.password_hash, User.disabled_at
                    ).where(User.username == name)
                )
            ).one_or_none()
        if row is None:
            return _Account(None, 0, None, "unknown user")
        if row.disabled_at is not None:
            return _Account(row.id, row.generation, None, "disabled user")
        return _Account(row.id, row.generation, row.password_hash, "")

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
        new_hash: str | None,
        caller: Caller,
    ) -> OpenSession | None:
        """Open the session, unless the account is not what was verified any more.

        The user's row is locked, so a logout-everywhere or a change of password comes
        either before, and is seen here, or after, and sees this session.
        """
        user_id = account.user_id or ""
        if new_hash is not None:
            # Before the shared lock: two logins that both held it could not both get
            # from there to an exclusive one.
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
        session = await self._sessions.open(db, subject, caller)
        act = Act(
            "login.succeeded",
            actor=user_id,
            subject=user_id,
            facts={"sid": session.grant.sid, "device": caller.device_label},
        )
        await self._audit(db, act, caller)
        return session

    async def _refuse(self, account: _Account, reason: str, caller: Caller) -> None:
        """Record the attempt. The name that was typed is not: it may be a password."""
        act = Act(
            "login.failed",
            actor="unknown",
            subject=account.user_id or "unknown",
            facts={"reason": reason},
        )
        async with self._database.write() as db:
            await self._audit(db, act, caller)
        self._count_login(reason.replace(" ", "_"))
