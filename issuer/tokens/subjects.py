"""Whom a user's tokens speak about: the account as tokens see it, read from its rows."""

from __future__ import annotations

from dataclasses import dataclass

from sqlalchemy import select
from sqlalchemy.ext.asyncio import AsyncSession

from issuer.http.authorization.scopes import format_scope
from issuer.storage.tables.roles import Role, UserRole
from issuer.storage.tables.users import User


@dataclass(frozen=True, slots=True)
class Subject:
    """A user as tokens see it.

    Attributes:
        user_id: the `sub`.
        username: normal form.
        generation: the least `gen` that still counts.
        is_disabled: a disabled user gets no token.
        roles: names, sorted.
        scope: all the roles grant together, sorted, space-delimited.
    """

    user_id: str
    username: str
    generation: int
    is_disabled: bool
    roles: tuple[str, ...]
    scope: str


async def load_subject(
    db: AsyncSession, user_id: str, *, is_locked: bool = False
) -> Subject | None:
    """Return the user as the database has it now; None when there is none.

    Args:
        db: an open transaction.
        user_id: the `sub`.
        is_locked: keep the row from changing until the transaction ends, and others who
            ask for the same from going on: two logins at once count sessions in turn.
    """
    query = select(User.id, User.username, User.generation, User.disabled_at).where(
        User.id == user_id
    )
    if is_locked:
        # SQLite has no row locks: its writers go one after the other anyway.
        query = query.with_for_update(key_share=True)
    row = (await db.execute(query)).one_or_none()
    if row is None:
        return None
    held = await db.execute(
        select(Role.name, Role.scopes)
        .join(UserRole, UserRole.role_name == Role.name)
        .where(UserRole.user_id == user_id)
        .order_by(Role.name)
    )
    roles = held.all()
    return Subject(
        user_id=row.id,
        username=row.username,
        generation=row.generation,
        is_disabled=row.disabled_at is not None,
        roles=tuple(role.name for role in roles),
        scope=format_scope(scope for role in roles for scope in role.scopes.split()),
    )
