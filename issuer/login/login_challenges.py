"""Logins that wait for the second factor.

The answer to a right password is a challenge: a token that replaces it for a few
minutes, a few attempts and one success. A logout everywhere, a new password or a lock
makes it void.
"""

from __future__ import annotations

import secrets
from typing import Final

from sqlalchemy import delete, insert, select, update
from sqlalchemy.ext.asyncio import AsyncSession

from issuer.credentials.one_time_tokens import (
    LOGIN_CHALLENGE,
    digest_token,
    make_token,
)
from issuer.errors import InvalidGrantError, SecondFactorRequiredError
from issuer.storage.lifetimes import is_living
from issuer.storage.tables.login import LoginChallenge
from issuer.storage.tables.users import User
from issuer.tokens.opaque_tokens import RANDOM_BYTES
from issuer.tokens.subjects import Subject, load_subject

#: Seconds a challenge is valid.
CHALLENGE_TTL: Final = 300
ATTEMPTS: Final = 5


async def start_challenge(
    db: AsyncSession, subject: Subject, scope: str, now: int
) -> SecondFactorRequiredError:
    """Store a challenge; return the error with its token. Raise it after the commit.

    Args:
        db: a write transaction.
        subject: the user after a right password.
        scope: of the future session, space-delimited.
        now: Unix seconds.
    """
    token = make_token(LOGIN_CHALLENGE, secrets.token_bytes(RANDOM_BYTES))
    await db.execute(
        insert(LoginChallenge).values(
            digest=digest_token(LOGIN_CHALLENGE, token),
            user_id=subject.user_id,
            generation=subject.generation,
            attempts_left=ATTEMPTS,
            expires_at=now + CHALLENGE_TTL,
            scope=scope,
        )
    )
    return SecondFactorRequiredError(token, CHALLENGE_TTL)


async def take_attempt(
    db: AsyncSession, digest: bytes, user_id: str, now: int
) -> Subject:
    """Use one attempt; return the challenge's user, locked.

    Args:
        db: a write transaction.
        digest: of the challenge's token.
        user_id: its user, as read before.
        now: Unix seconds.

    Raises:
        InvalidGrantError: when the challenge is spent, expired or void.
    """
    # The user first: `families.py` has the order of locks. An exclusive lock: with
    # shared ones, two answers to challenges of one user would deadlock.
    await lock_user(db, user_id)
    subject = await load_subject(db, user_id, is_locked=True)
    generation = await db.scalar(
        update(LoginChallenge)
        .where(
            LoginChallenge.digest == digest,
            LoginChallenge.user_id == user_id,
            LoginChallenge.attempts_left > 0,
            is_living(LoginChallenge.expires_at, now, CHALLENGE_TTL),
        )
        .values(attempts_left=LoginChallenge.attempts_left - 1)
        .returning(LoginChallenge.generation)
    )
    if (
        generation is None
        or subject is None
        or subject.is_disabled
        or subject.generation != generation
    ):
        raise InvalidGrantError(detail="the login challenge is spent or void")
    return subject


async def lock_user(db: AsyncSession, user_id: str) -> None:
    """Block other logins of the user until the transaction ends."""
    await db.execute(
        select(User.id).where(User.id == user_id).with_for_update(key_share=True)
    )


async def end_challenges(db: AsyncSession, user_id: str) -> None:
    """Delete a user's challenges, after an answered one or to make them void."""
    await db.execute(delete(LoginChallenge).where(LoginChallenge.user_id == user_id))
