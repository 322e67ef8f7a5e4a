"""Somebody must be left who may do everything: the last administrator stays.

An administrator is a user who is enabled, has a password and holds a role that grants
`gatehouse:admin`. A client with that scope does not count: it cannot be asked for help.
"""

from __future__ import annotations

from sqlalchemy import ColumnElement, literal, select
from sqlalchemy.ext.asyncio import AsyncSession

from issuer.errors import LastAdministratorError
from issuer.http.authorization.scopes import ADMIN_SCOPE
from issuer.storage.advisory_locks import AdvisoryLock, take_lock
from issuer.storage.db import Database
from issuer.storage.tables.roles import Role, UserRole
from issuer.storage.tables.users import User


async def lock_administrators(database: Database, db: AsyncSession) -> None:
    """Wait until no other transaction is removing an administrator.

    Two who remove each other at once would each see the other still there. Taken before
    every other lock of the transaction, and kept to its end; SQLite's writers go one
    after the other anyway.
    """
    await take_lock(database, db, AdvisoryLock.ADMINISTRATORS)


async def is_administrator(db: AsyncSession, user_id: str) -> bool:
    """Tell whether this user is one."""
    return await _exists(db, User.id == user_id)


async def require_administrator(db: AsyncSession) -> None:
    """Return when there is still an administrator after what was done until now.

    Raises:
        LastAdministratorError: when there is none.
    """
    if not await _exists(db, literal(True)):
        raise LastAdministratorError


def grants_everything(scopes: str) -> bool:
    """Tell whether a role with these scopes, space-delimited, makes administrators."""
    return ADMIN_SCOPE in scopes.split()


async def _exists(db: AsyncSession, which: ColumnElement[bool]) -> bool:
    padded = literal(" ") + Role.scopes + " "
    found = await db.scalar(
        select(User.id)
        .join(UserRole, UserRole.user_id == User.id)
        .join(Role, Role.name == UserRole.role_name)
        .where(
            which,
            User.disabled_at.is_(None),
            User.password_hash != "",
            padded.contains(f" {ADMIN_SCOPE} ", autoescape=True),
        )
        .limit(1)
    )
    return found is not None
