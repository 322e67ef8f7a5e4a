"""Ends personal keys in the caller's transaction, and forgets those that ended long
ago.

The rows are changed here; the feed's entry is the caller's: the `sid` of a key's tokens
is the key's id, and raising a user's generation ends all tokens of all the user's keys.
"""

from __future__ import annotations

from typing import Final

from sqlalchemy import ColumnElement, delete, select, update
from sqlalchemy.ext.asyncio import AsyncSession

from issuer.storage.tables.personal_keys import PersonalKey

#: Keys deleted in one transaction: others must not wait long.
PRUNE_BATCH: Final = 500


async def end_keys(
    db: AsyncSession, which: ColumnElement[bool], now: int
) -> dict[str, str]:
    """Revoke the keys that `which` selects; return owners by id of those not yet
    revoked.

    Args:
        db: an open write transaction.
        which: a condition on `PersonalKey`.
        now: Unix seconds.
    """
    chosen = (which, PersonalKey.revoked_at.is_(None))
    # In one order, so that two who do this do not wait for each other.
    await db.execute(
        select(PersonalKey.id).where(*chosen).order_by(PersonalKey.id).with_for_update()
    )
    ended = await db.execute(
        update(PersonalKey)
        .where(*chosen)
        .values(revoked_at=now)
        .returning(PersonalKey.id, PersonalKey.user_id)
        .execution_options(synchronize_session=False)
    )
    return {row.id: row.user_id for row in ended}


async def delete_ended_keys(db: AsyncSession, before: int) -> int:
    """Delete some keys that were revoked or expired before a time; return how many.

    A key without a row is unknown, so it is never exchanged again (R50).

    Args:
        db: an open write transaction.
        before: Unix seconds, long enough ago that every entry of the feed about their
            tokens is pruned.
    """
    # Two statements, so that each has an index.
    total = 0
    for is_long_over in (
        PersonalKey.revoked_at < before,
        PersonalKey.expires_at < before,
    ):
        some = select(PersonalKey.id).where(is_long_over).limit(PRUNE_BATCH)
        gone = await db.scalars(
            delete(PersonalKey)
            .where(PersonalKey.id.in_(some))
            .returning(PersonalKey.id)
            .execution_options(synchronize_session=False)
        )
        total += len(gone.all())
    return total
