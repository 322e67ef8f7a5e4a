"""The row of a user that gets another password."""

from __future__ import annotations

from sqlalchemy import ColumnElement, update
from sqlalchemy.ext.asyncio import AsyncSession

from issuer.storage.tables.users import User


async def replace_hash(
    db: AsyncSession,
    user_id: str,
    generation: int,
    new_hash: str,
    now: int,
    *conditions: ColumnElement[bool],
) -> int | None:
    """Set a user's hash, and return the generation that ends the older tokens.

    Only for the generation that was verified: one of two concurrent changes succeeds,
    and neither undoes a logout everywhere. None when the user has another generation or
    a condition is false.
    """
    return await db.scalar(
        update(User)
        .where(User.id == user_id, User.generation == generation, *conditions)
        .values(
            password_hash=new_hash,
            generation=User.generation + 1,
            version=User.version + 1,
            updated_at=now,
            password_changed_at=now,
        )
        .returning(User.generation)
        .execution_options(synchronize_session=False)
    )
