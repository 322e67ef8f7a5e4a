"""A forgotten password: an administrator issues a token that sets a new one, once.

The token is valid while neither of the two has changed: it ends when the administrator
was demoted, disabled or deleted, or has ended all sessions (requirement R52), and when
the user's password was changed. All these acts raise a generation, which is compared.

The token is never in a URL of ours (requirement R37). An operator's page takes it from
the fragment of a link, which browsers do not send, and posts it with the new password.
"""

from __future__ import annotations

import secrets
from dataclasses import dataclass
from typing import NamedTuple, NoReturn

from sqlalchemy import ColumnElement, delete, exists, insert, or_, select
from sqlalchemy.ext.asyncio import AsyncSession
from sqlalchemy.orm import aliased

from issuer.acts import Act, Caller
from issuer.clock import seconds
from issuer.credentials.one_time_tokens import (
    PASSWORD_RESET,
    digest_token,
    make_token,
)
from issuer.credentials.throttle import LoginThrottling
from issuer.errors import (
    InvalidGrantError,
    InvalidRequestError,
    NotFoundError,
)
from issuer.feed.feed import Position
from issuer.foundation import Foundation
from issuer.hashing.new_passwords import NewPasswords
from issuer.http.authorization.principals import Principal
from issuer.login.login_challenges import end_challenges
from issuer.passwords.password_rows import replace_hash
from issuer.sessions.session_ending import SessionEnding, SessionsToEnd
from issuer.storage.lifetimes import is_living
from issuer.storage.tables.clients import Client
from issuer.storage.tables.login import PasswordResetRow
from issuer.storage.tables.users import User
from issuer.tokens.opaque_tokens import RANDOM_BYTES


@dataclass(frozen=True, slots=True)
class ResetToken:
    """A token that sets the password of one user; `expires_in` is in seconds."""

    token: str
    expires_in: int


class _Owner(NamedTuple):
    user_id: str
    username: str
    generation: int
    made_by: str


class PasswordReset:
    """Issues reset tokens and exchanges them for a new password.

    Args:
        base: gives the database, the clock, the audit and the settings.
        new_passwords: checks and hashes them.
        ending: ends all sessions.
        throttling: forgets the failures that led here.
    """

    def __init__(
        self,
        base: Foundation,
        new_passwords: NewPasswords,
        ending: SessionEnding,
        throttling: LoginThrottling,
    ) -> None:
        self._database = base.database
        self._new_passwords = new_passwords
        self._ending = ending
        self._throttling = throttling
        self._clock = base.clock
        self._audit = base.audit
        self._token_ttl = base.settings.password_reset_ttl

    async def allow(
        self, user_id: str, caller: Caller, *, actor: Principal
    ) -> ResetToken:
        """Return a token for this user; an earlier one becomes void.

        The present password stays valid until a new one is set.

        Args:
            user_id: the user whose password it sets.
            caller: origin of the request.
            actor: the administrator.

        Raises:
            NotFoundError: when there is no such user.
            UnavailableError: when the database is away.
        """
        token = make_token(PASSWORD_RESET, secrets.token_bytes(RANDOM_BYTES))
        async with self._database.write() as db:
            # Locked, so that the later of two concurrent tokens is valid.
            generation = await db.scalar(
                select(User.generation).where(User.id == user_id).with_for_update()
            )
            if generation is None:
                raise NotFoundError
            await _void(db, user_id)
            await db.execute(
                insert(PasswordResetRow).values(
                    user_id=user_id,
                    digest=digest_token(PASSWORD_RESET, token),
                    expires_at=seconds(self._clock) + self._token_ttl,
                    user_generation=generation,
                    made_by=actor.subject,
                    made_by_generation=actor.generation,
                )
            )
            act = Act("password.reset_allowed", actor=actor.subject, subject=user_id)
            await self._audit(db, act, caller)
        return ResetToken(token, self._token_ttl)

    async def set_password(
        self, token: str, new_password: str, caller: Caller
    ) -> Position:
        """Set the password of the token's user and end all sessions.

        Args:
            token: the reset token.
            new_password: as typed.
            caller: origin of the request.

        Returns:
            The feed position at which verifiers refuse all earlier tokens.

        Raises:
            InvalidRequestError: when the token is unknown, used, expired or void, or
                the new password breaks a rule; the token stays valid in that case.
            UnavailableError: when the hashing queue is full or the database is away.
        """
        digest = _digest(token)
        owner = await self._find(digest)
        new_hash = await self._new_passwords.hash(new_password, owner.username)
        now = seconds(self._clock)
        async with self._database.write() as db:
            generation = await self._replace(db, owner, digest, new_hash, now)
            everything = SessionsToEnd(user_ids=[owner.user_id])
            await self._ending.end_sessions(
                db, everything, reason="password_reset", now=now
            )
            await end_challenges(db, owner.user_id)
            await self._throttling.forget_account(db, owner.username)
            act = Act("password.reset", actor=owner.user_id, subject=owner.user_id)
            await self._audit(db, act, caller)
            return await self._ending.publish_generation(
                db, owner.user_id, generation, now
            )

    async def _find(self, digest: bytes) -> _Owner:
        async with self._database.read() as db:
            row = (
                await db.execute(
                    select(
                        User.id,
                        User.username,
                        User.generation,
                        PasswordResetRow.made_by,
                    )
                    .join(PasswordResetRow, PasswordResetRow.user_id == User.id)
                    .where(
                        PasswordResetRow.digest == digest,
                        is_living(
                            PasswordResetRow.expires_at,
                            seconds(self._clock),
                            self._token_ttl,
                        ),
                        PasswordResetRow.user_generation == User.generation,
                        _has_maker(),
                    )
                )
            ).one_or_none()
        if row is None:
            _refuse_token()
        return _Owner(row.id, row.username, row.generation, row.made_by or "")

    async def _replace(
        self, db: AsyncSession, owner: _Owner, digest: bytes, new_hash: str, now: int
    ) -> int:
        """Spend the token, set the hash and return the new generation."""
        # The users first: `families.py` has the order of locks.
        await _hold(db, owner)
        generation = await replace_hash(
            db, owner.user_id, owner.generation, new_hash, now
        )
        spent = await db.scalar(
            delete(PasswordResetRow)
            .where(
                PasswordResetRow.user_id == owner.user_id,
                PasswordResetRow.digest == digest,
                PasswordResetRow.user_generation == owner.generation,
                _has_maker(),
            )
            .returning(PasswordResetRow.user_id)
            .execution_options(synchronize_session=False)
        )
        if generation is None or spent is None:
            # It was used or became void meanwhile; the transaction is rolled back.
            _refuse_token()
        return generation


async def _void(db: AsyncSession, user_id: str) -> None:
    await db.execute(
        delete(PasswordResetRow).where(PasswordResetRow.user_id == user_id)
    )


def _has_maker() -> ColumnElement[bool]:
    """Return the condition that the token's maker still has the same rights."""
    maker = aliased(User)
    return or_(
        *(
            exists().where(
                kind.id == PasswordResetRow.made_by,
                kind.generation == PasswordResetRow.made_by_generation,
                kind.disabled_at.is_(None),
            )
            for kind in (maker, Client)
        )
    )


async def _hold(db: AsyncSession, owner: _Owner) -> None:
    """Lock the rows of the user and the maker until the transaction ends.

    After the answer to a demotion no token of that administrator can succeed: the
    demotion either waits for this transaction or is seen by it.
    """
    both = select(User.id).where(User.id.in_((owner.user_id, owner.made_by)))
    # In the same order for all, so that two resets do not deadlock.
    await db.execute(both.order_by(User.id).with_for_update(key_share=True))
    client = select(Client.id).where(Client.id == owner.made_by)
    await db.execute(client.with_for_update(read=True))


def _refuse_token() -> NoReturn:
    rule = "must be one that was handed out, and is neither used, expired nor void"
    raise InvalidRequestError.of_field("reset_token", rule)


def _digest(token: str) -> bytes:
    try:
        return digest_token(PASSWORD_RESET, token)
    except InvalidGrantError:
        _refuse_token()
