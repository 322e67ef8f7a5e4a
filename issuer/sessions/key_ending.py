"""Ends personal keys in the caller's transaction, and deletes keys that ended long ago.

Only the rows are changed here; the caller writes the entry in the feed. The `sid` of a
key's tokens is the key's id, and a higher generation of a user ends the tokens of all
of the user's keys.
"""

from __future__ import annotations

from typing import Final

from sqlalchemy import ColumnElement, delete, select, update
from sqlalchemy.ext.asyncio import AsyncSession

from issuer.storage.tables.personal_keys import PersonalKey

#: Keys deleted in one transaction; other transactions must not wait long.
PRUNE_BATCH: Final = 500


async def end_keys(
    db: AsyncSession, which: ColumnElement[bool], now: int
) -> dict[str, str]:
    """Revoke keys, and return the owners of those revoked now, by the key's id.

    Args:
        db: an open write transaction.
        which: a condition on `PersonalKey`.
        now: Unix seconds.
    """
    chosen = (which, PersonalKey.revoked_at.is_(None))
    # Always in this order, so that two transactions do not deadlock.
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
    """Delete some keys that ended before a time, and return the number.

    A key without a row is unknown, so it is never exchanged again (R50).

    Args:
        db: an open write transaction.
        before: Unix seconds; long enough ago that the feed has pruned every entry about
            their tokens.
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
