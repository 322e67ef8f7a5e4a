"""Changes the user's own password, and ends all other sessions of the user."""

from __future__ import annotations

from sqlalchemy.ext.asyncio import AsyncSession

from issuer.acts import Act, Caller
from issuer.clock import seconds
from issuer.credentials.password_proof import PasswordProof
from issuer.errors import ConflictError
from issuer.feed.feed import Position
from issuer.foundation import Foundation
from issuer.hashing.new_passwords import NewPasswords
from issuer.http.authorization.principals import Principal
from issuer.login.login_completion import LoggedIn, LoginCompletion
from issuer.passwords.password_rows import replace_hash
from issuer.sessions.open_sessions import OpenSession
from issuer.sessions.sessions import Sessions
from issuer.storage.database_attempts import retry_conflicts
from issuer.storage.tables.users import User


class PasswordChange:
    """Replaces a user's password.

    Args:
        base: gives the database, the clock, the audit and the settings.
        proof: verifies the old password.
        new_passwords: checks and hashes them.
        sessions: renews this session and ends the others.
        completion: returns this session's new tokens.
    """

    def __init__(
        self,
        base: Foundation,
        proof: PasswordProof,
        new_passwords: NewPasswords,
        sessions: Sessions,
        completion: LoginCompletion,
    ) -> None:
        self._database = base.database
        self._proof = proof
        self._new_passwords = new_passwords
        self._sessions = sessions
        self._completion = completion
        self._clock = base.clock
        self._audit = base.audit

    async def change(
        self,
        principal: Principal,
        current_password: str,
        new_password: str,
        caller: Caller,
        *,
        keep_keys: bool = False,
    ) -> tuple[LoggedIn, Position]:
        """Replace the password; return new tokens for this session, and a position.

        The user's generation rises: at that feed position a verifier refuses every
        other token of the user. Every other session and every personal key has ended.

        Args:
            principal: the user, signed in.
            current_password: as typed.
            new_password: as typed.
            caller: origin of the request.
            keep_keys: keep the personal keys: the owner knows all of them.

        Raises:
            InvalidRequestError: when the new password breaks a rule.
            ConflictError: when the account was changed at the same time.
            UnauthenticatedError: when the session was ended at the same time.
            UnavailableError: when the hashing queue is full or the database is away.
            IssuerError: as `PasswordProof.prove` raises.
        """
        user = await self._proof.prove(principal, current_password, caller)
        new_hash = await self._new_passwords.hash(new_password, user.username)

        async def replace() -> tuple[OpenSession, Position]:
            async with self._database.write() as db:
                return await self._replace(
                    db, principal, user, new_hash, caller, keep_keys=keep_keys
                )

        # The whole request cannot be repeated: its proof is counted already.
        session, position = await retry_conflicts(replace)
        return await self._completion.answer(session), position

    async def _replace(
        self,
        db: AsyncSession,
        principal: Principal,
        user: User,
        new_hash: str,
        caller: Caller,
        *,
        keep_keys: bool,
    ) -> tuple[OpenSession, Position]:
        now = seconds(self._clock)
        is_enabled = User.disabled_at.is_(None)
        changed = await replace_hash(
            db, user.id, user.generation, new_hash, now, is_enabled
        )
        if changed is None:
            raise ConflictError("The account was changed at the same time.")
        facts = {"personal_keys": "kept" if keep_keys else "ended"}
        act = Act("password.changed", user.id, user.id, facts)
        await self._audit(db, act, caller)
        return await self._sessions.start_over(db, principal, keep_keys=keep_keys)
