"""The subject of a user's tokens, read from the account's rows."""

from __future__ import annotations

from dataclasses import dataclass

from sqlalchemy import select
from sqlalchemy.ext.asyncio import AsyncSession

from issuer.http.authorization.scopes import format_scope
from issuer.storage.tables.roles import Role, UserRole
from issuer.storage.tables.users import User


@dataclass(frozen=True, slots=True)
class Subject:
    """A user as tokens describe it.

    Attributes:
        user_id: the `sub`.
        username: normal form.
        generation: the least valid `gen`.
        is_disabled: a disabled user gets no token.
        roles: names, sorted.
        scope: the union of the roles' scopes, sorted, space-delimited.
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
    """Return the user from the database; None if there is none.

    Args:
        db: an open transaction.
        user_id: the `sub`.
        is_locked: lock the row until the transaction ends. Concurrent logins of one
            user then run one after the other and count sessions correctly.
    """
    query = select(User.id, User.username, User.generation, User.disabled_at).where(
        User.id == user_id
    )
    if is_locked:
        # SQLite has no row locks; its writers run one after the other.
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
