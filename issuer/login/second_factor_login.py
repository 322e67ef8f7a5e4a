"""The second step of a login: a challenge and a code lead to a session.

`log_in` is over 40 lines: it documents its arguments and errors.
"""

from __future__ import annotations

from typing import NamedTuple

from sqlalchemy import select
from sqlalchemy.ext.asyncio import AsyncSession

from issuer.acts import Act, Caller
from issuer.clock import seconds
from issuer.credentials.failure_counts import LoginAttempt, Proof
from issuer.credentials.one_time_tokens import LOGIN_CHALLENGE, digest_token
from issuer.credentials.second_factor_codes import TOTP, SecondFactorCodes
from issuer.credentials.throttle import LoginThrottling
from issuer.errors import (
    InvalidGrantError,
    InvalidSecondFactorError,
)
from issuer.foundation import Foundation
from issuer.http.authorization.login_methods import BY_CODE, BY_RECOVERY_CODE
from issuer.http.authorization.scopes import narrow_scope, parse_scope
from issuer.login.attempts import KnownUser, LoginAttempts
from issuer.login.login_challenges import end_challenges, take_attempt
from issuer.login.login_completion import LoggedIn, LoginCompletion
from issuer.sessions.open_sessions import OpenSession
from issuer.storage.tables.login import LoginChallenge
from issuer.storage.tables.users import User
from issuer.tokens.subjects import load_subject


class _Owner(NamedTuple):
    user_id: str
    username: str
    generation: int
    scope: str


class SecondFactorLogin:
    """Completes logins that wait for a code.

    Args:
        base: gives the database, the clock and the audit.
        codes: verify the code.
        attempts: admits attempts and counts their outcomes.
        completion: opens the session and returns its tokens.
        throttling: counts wrong codes, of all challenges together.
    """

    def __init__(
        self,
        base: Foundation,
        codes: SecondFactorCodes,
        attempts: LoginAttempts,
        completion: LoginCompletion,
        throttling: LoginThrottling,
    ) -> None:
        self._database = base.database
        self._codes = codes
        self._completion = completion
        self._attempts = attempts
        self._throttling = throttling
        self._clock = base.clock
        self._audit = base.audit

    async def log_in(
        self,
        mfa_token: str,
        code: str,
        caller: Caller,
        *,
        device_token: str | None = None,
        scope: str | None = None,
    ) -> LoggedIn:
        """Return the tokens of a new session.

        Args:
            mfa_token: the challenge's token.
            code: as typed; of the app, or a recovery code.
            caller: origin of the request.
            device_token: as for `Login.log_in`.
            scope: the requested part of the first step's scope, space-delimited; None
                requests all of it.

        Raises:
            InvalidScopeError: when the scope exceeds that; the attempt is not counted.
            InvalidGrantError: when the challenge is spent, expired or void.
            InvalidSecondFactorError: when the code is wrong or spent; the failure has
                been recorded and counted.
            TooManyRequestsError: while the caller has to wait after wrong codes, or
                when the user has opened too many sessions recently. The code is not
                spent.
            UnavailableError: when the database is away.
        """
        digest = digest_token(LOGIN_CHALLENGE, mfa_token)
        wanted = None if scope is None else parse_scope(scope)
        owner, attempt = await self._admit(digest, caller, device_token, wanted)

        async def answer() -> OpenSession | InvalidSecondFactorError:
            async with self._database.write() as db:
                return await self._answer(db, digest, owner, attempt, code, caller)

        outcome = await self._attempts.finish(answer, attempt)
        if isinstance(outcome, InvalidSecondFactorError):
            self._attempts.count(outcome.detail.replace(" ", "_"))
            raise outcome
        self._attempts.count("succeeded")
        return await self._completion.answer(outcome)

    async def _admit(
        self,
        digest: bytes,
        caller: Caller,
        device_token: str | None,
        wanted: frozenset[str] | None,
    ) -> tuple[_Owner, LoginAttempt]:
        now = seconds(self._clock)
        async with self._database.read() as db:
            owner = await _find_owner(db, digest, wanted)
            recorded = await self._attempts.look(
                db,
                owner.username,
                KnownUser(owner.user_id, owner.generation),
                caller,
                device_token,
                now,
                proof=Proof.CODE,
            )
        return owner, await self._attempts.admit(recorded, now)

    async def _answer(
        self,
        db: AsyncSession,
        digest: bytes,
        owner: _Owner,
        attempt: LoginAttempt,
        code: str,
        caller: Caller,
    ) -> OpenSession | InvalidSecondFactorError:
        """Open the session; a wrong code is returned, for its record must be committed.

        The guess was counted when it was admitted.
        """
        now = seconds(self._clock)
        subject = await take_attempt(db, digest, owner.user_id, now)
        try:
            method = await self._codes.verify(db, subject.user_id, code, now)
        except InvalidSecondFactorError as error:
            await self._throttling.fail(db, attempt, now)
            act = Act(
                "login.failed",
                actor="unknown",
                subject=subject.user_id,
                facts={"reason": error.detail},
            )
            await self._audit(db, act, caller)
            return error
        await end_challenges(db, subject.user_id)
        return await self._completion.complete(
            db,
            subject,
            attempt,
            caller,
            scope=owner.scope,
            amr=BY_CODE if method == TOTP else BY_RECOVERY_CODE,
            now=now,
            facts={"second_factor": method},
        )


async def _find_owner(
    db: AsyncSession, digest: bytes, wanted: frozenset[str] | None
) -> _Owner:
    """Return whose challenge it is, and what its session is to be granted.

    Raises:
        InvalidGrantError: when the challenge is gone.
        InvalidScopeError: when more is wanted than the first step asked for.
    """
    row = (
        await db.execute(
            select(
                User.id,
                User.username,
                User.generation,
                LoginChallenge.scope,
            )
            .join(LoginChallenge, LoginChallenge.user_id == User.id)
            .where(LoginChallenge.digest == digest)
        )
    ).one_or_none()
    if row is None:
        raise InvalidGrantError(detail="the login challenge is gone")
    subject = await load_subject(db, row.id)
    offered = row.scope if row.scope is not None else subject and subject.scope
    scope = narrow_scope(wanted, offered or "")
    return _Owner(row.id, row.username, row.generation, scope)
