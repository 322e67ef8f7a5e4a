"""Ends personal keys in the caller's transaction, beside the sessions that end there.

The rows are changed here; the feed's entry is the caller's: the `sid` of a key's tokens is
the key's id, and raising a user's generation ends all tokens of all the user's keys.
"""

from __future__ import annotations

from collections.abc import Sequence

from sqlalchemy import ColumnElement, update
from sqlalchemy.ext.asyncio import AsyncSession

from issuer.models import PersonalKey


async def end_keys(
    db: AsyncSession, which: ColumnElement[bool], now: int
) -> Sequence[str]:
    """Revoke the keys that `which` selects and return the ids of those that were alive.

    Args:
        db: an open write transaction.
        which: a condition on `PersonalKey`.
        now: Unix seconds.
    """
    ended = await db.scalars(
        update(PersonalKey)
        .where(which, PersonalKey.revoked_at.is_(None))
        .values(revoked_at=now)
        .returning(PersonalKey.id)
        .execution_options(synchronize_session=False)
    )
    return sorted(ended)
