"""Roles: named sets of scopes that users hold."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

from sqlalchemy import select
from sqlalchemy.ext.asyncio import AsyncSession

from issuer.errors import FieldProblem, InvalidRequestError
from issuer.models import Role
from issuer.tokens.scopes import ADMIN_SCOPE, format_scope

#: The role that `create-admin` makes and gives.
ADMIN_ROLE: Final = "admin"


async def ensure_admin_role(db: AsyncSession, now: int) -> None:
    """Make the role `admin` when there is none; one that was changed stays as it is."""
    if await db.get(Role, ADMIN_ROLE) is None:
        scopes = format_scope([ADMIN_SCOPE])
        db.add(Role(name=ADMIN_ROLE, scopes=scopes, created_at=now))
        await db.flush()


async def require_roles(db: AsyncSession, names: Iterable[str]) -> None:
    """Return when every one of these roles exists; they stay until the commit.

    Raises:
        InvalidRequestError: when one does not.
    """
    wanted = set(names)
    query = select(Role.name).where(Role.name.in_(wanted)).order_by(Role.name)
    found = set(await db.scalars(query.with_for_update(read=True, key_share=True)))
    if wanted - found:
        raise InvalidRequestError(
            problems=[FieldProblem("roles", "must name roles that exist")]
        )
