"""Raises the generations of several users or clients, in the caller's transaction."""

from __future__ import annotations

from sqlalchemy import ColumnElement, select, update
from sqlalchemy.ext.asyncio import AsyncSession

from issuer.storage.tables.clients import Client
from issuer.storage.tables.users import User


async def raise_generations(
    db: AsyncSession,
    table: type[User] | type[Client],
    chosen: ColumnElement[bool],
    **values: int,
) -> list[tuple[str, int]]:
    """Raise the generation of each, and return ids and new generations.

    Args:
        db: a write transaction.
        table: of the users or the clients.
        chosen: which rows.
        values: further columns to set.
    """
    # Always locked in this order, so that two of these transactions do not deadlock.
    await db.execute(
        select(table.id).where(chosen).order_by(table.id).with_for_update()
    )
    raised = await db.execute(
        update(table)
        .where(chosen)
        .values(generation=table.generation + 1, **values)
        .returning(table.id, table.generation)
        .execution_options(synchronize_session=False)
    )
    return [(row.id, row.generation) for row in raised]
