"""The rule that one administrator always remains.

An administrator is a user who is enabled, has a password and holds a role that grants
`gatehouse:admin`. A client with that scope does not count: users cannot ask it for
help.
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

    Two administrators who remove each other at the same time would each still see the
    other. The lock is taken before every other lock of the transaction, and kept to its
    end. SQLite has one writer at a time anyway.
    """
    await take_lock(database, db, AdvisoryLock.ADMINISTRATORS)


async def is_administrator(db: AsyncSession, user_id: str) -> bool:
    """Return whether this user is an administrator."""
    return await _exists(db, User.id == user_id)


async def require_administrator(db: AsyncSession) -> None:
    """Return when there is still an administrator after the transaction's changes.

    Raises:
        LastAdministratorError: when there is none.
    """
    if not await _exists(db, literal(True)):
        raise LastAdministratorError


def grants_everything(scopes: str) -> bool:
    """Return whether a role with these space-delimited scopes makes administrators."""
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
