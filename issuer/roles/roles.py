"""Roles: named sets of scopes that users hold.

When a change takes effect: scopes that a role gains are in the tokens of the next login
(a refresh grants no more than its session was granted, RFC 6749, section 6). Scopes
that it loses end at once: the generation of every holder rises in the same transaction,
so that verifiers refuse the present access tokens. The sessions continue: the next
refresh gives a token without these scopes.

Lock order: administrators, roles, then as in `families.py`. A role that is given to a
user is locked until the commit, so it is not deleted or narrowed meanwhile.

`Roles.replace` is over 40 lines: it documents its arguments and errors.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Sequence
from dataclasses import dataclass
from typing import Final

from sqlalchemy import Select, delete, insert, select, update
from sqlalchemy.exc import IntegrityError
from sqlalchemy.ext.asyncio import AsyncSession

from issuer.acts import Act, Caller
from issuer.clock import seconds
from issuer.errors import (
    ConflictError,
    InvalidRequestError,
    NotFoundError,
    RoleInUseError,
)
from issuer.feed.feed import Position, Revocation, RevocationFeed
from issuer.foundation import Foundation
from issuer.http.authorization.scopes import ADMIN_SCOPE, format_scope
from issuer.roles.administrators import (
    grants_everything,
    lock_administrators,
    require_administrator,
)
from issuer.roles.role_limits import (
    read_scopes,
    require_granted_fits,
    require_holders_fit,
)
from issuer.storage.tables.roles import Role, UserRole
from issuer.storage.tables.users import User
from issuer.tokens.access import last_expiry
from issuer.tokens.generations import raise_generations
from shared.feed import EntryKind

#: The role that `create-admin` makes and gives.
ADMIN_ROLE: Final = "admin"


@dataclass(frozen=True, slots=True)
class RoleView:
    """A role; `created_at` in Unix seconds, `scopes` sorted."""

    name: str
    scopes: tuple[str, ...]
    description: str
    created_at: int


#: Raises when the role is not in the state that the changer saw.
ExpectRole = Callable[[RoleView], None]


class Roles:
    """Makes, reads, changes and deletes roles.

    Args:
        base: gives the database, the clock and the audit.
        feed: publishes the new generations of holders.
    """

    def __init__(self, base: Foundation, feed: RevocationFeed) -> None:
        self._database = base.database
        self._feed = feed
        self._clock = base.clock
        self._audit = base.audit

    async def list_all(self) -> Sequence[RoleView]:
        """Return every role, by name.

        Raises:
            UnavailableError: when the database is away.
        """
        async with self._database.read() as db:
            found = await db.scalars(select(Role).order_by(Role.name))
            return [_build_view(role) for role in found]

    async def get(self, name: str) -> RoleView:
        """Return the role with this name.

        Raises:
            NotFoundError: when there is none.
            UnavailableError: when the database is away.
        """
        async with self._database.read() as db:
            role = await db.get(Role, name)
        if role is None:
            raise NotFoundError
        return _build_view(role)

    async def create(
        self,
        name: str,
        scopes: Sequence[str],
        description: str,
        *,
        actor: str,
        caller: Caller,
    ) -> RoleView:
        """Make a role and return it.

        Args:
            name: a new one.
            scopes: that it grants; may be empty.
            description: for people.
            actor: subject of the maker.
            caller: origin of the request.

        Raises:
            InvalidRequestError: when a scope is malformed, or they are too many.
            ConflictError: when the name is taken.
            UnavailableError: when the database is away.
        """
        granted = read_scopes(scopes)
        require_granted_fits([name], {name: granted})
        values = {
            "name": name,
            "scopes": granted,
            "description": description,
            "created_at": seconds(self._clock),
        }
        try:
            async with self._database.write() as db:
                await db.execute(insert(Role).values(values))
                act = Act("role.created", actor, name, {"scopes": granted})
                await self._audit(db, act, caller)
        except IntegrityError:
            raise ConflictError("The name of the role is taken.") from None
        return _build_view(Role(**values))

    async def replace(
        self,
        name: str,
        scopes: Sequence[str],
        description: str,
        expect: ExpectRole,
        *,
        actor: str,
        caller: Caller,
    ) -> tuple[RoleView, Position | None]:
        """Give a role other scopes and another description.

        Args:
            name: the role's name.
            scopes: all scopes that it grants from now on.
            description: for people.
            expect: raises when the role is not in the state that the changer saw.
            actor: subject of the changer.
            caller: origin of the request.

        Returns:
            The role, and the feed position that ends its holders' access tokens; None
            when it lost no scope or has no holder.

        Raises:
            InvalidRequestError: when a scope is malformed, or they are too many.
            NotFoundError: when there is no such role.
            PreconditionFailedError: from `expect`.
            LastAdministratorError: when no administrator would be left.
            UnavailableError: when the database is away.
        """
        granted = read_scopes(scopes)
        async with self._database.write() as db:
            await lock_administrators(self._database, db)
            role = await _lock(db, name)
            expect(_build_view(role))
            before = role.scopes
            if (before, role.description) == (granted, description):
                return _build_view(role), None
            await _update(db, role, granted, description)
            lost = format_scope(set(before.split()) - set(granted.split()))
            facts: dict[str, str | int] = {"scopes": granted, "lost": lost}
            await self._audit(db, Act("role.changed", actor, name, facts), caller)
            await db.refresh(role)
            view = _build_view(role)
            position = await self._revoke_holders(db, name) if lost else None
        return view, position

    async def delete(
        self, name: str, expect: ExpectRole, *, actor: str, caller: Caller
    ) -> None:
        """Delete a role without holders.

        Raises:
            NotFoundError: when there is no such role.
            PreconditionFailedError: from `expect`.
            RoleInUseError: when it has holders.
            UnavailableError: when the database is away.
        """
        async with self._database.write() as db:
            role = await _lock(db, name)
            expect(_build_view(role))
            if await db.scalar(_holders(name).limit(1)) is not None:
                raise RoleInUseError
            await db.execute(delete(Role).where(Role.name == name))
            await self._audit(db, Act("role.deleted", actor, name), caller)

    async def _revoke_holders(self, db: AsyncSession, name: str) -> Position | None:
        """Raise the generation of all holders; the transaction's last act.

        This includes disabled holders: one who is enabled at this moment could log in
        with the old scopes.
        """
        raised = await raise_generations(db, User, User.id.in_(_holders(name)))
        last = last_expiry(seconds(self._clock))
        revocations = [
            Revocation(EntryKind.USER, user_id, last, generation)
            for user_id, generation in raised
        ]
        return await self._feed.append(db, *revocations) if revocations else None


async def ensure_admin_role(db: AsyncSession, now: int) -> None:
    """Make the role `admin` if it does not exist; a changed one is kept."""
    if await db.get(Role, ADMIN_ROLE) is None:
        scopes = format_scope([ADMIN_SCOPE])
        db.add(Role(name=ADMIN_ROLE, scopes=scopes, created_at=now))
        await db.flush()


async def require_roles(db: AsyncSession, names: Iterable[str]) -> None:
    """Return when all these roles exist, and lock them until the commit.

    Raises:
        InvalidRequestError: when one does not exist, or when together they grant more
            than fits into a token.
    """
    wanted = set(names)
    require_granted_fits(wanted, await hold_roles(db, wanted))


async def hold_roles(db: AsyncSession, wanted: Collection[str]) -> dict[str, str]:
    """Return the scopes of these roles, and lock them until the commit.

    Raises:
        InvalidRequestError: when one does not exist.
    """
    query = select(Role.name, Role.scopes).where(Role.name.in_(wanted))
    locked = query.order_by(Role.name).with_for_update(read=True, key_share=True)
    found = {row.name: row.scopes for row in await db.execute(locked)}
    if found.keys() != set(wanted):
        raise InvalidRequestError.of_field("roles", "must name roles that exist")
    return found


async def _lock(db: AsyncSession, name: str) -> Role:
    """Lock the role against deletion, changes and new holders."""
    role = await db.scalar(select(Role).where(Role.name == name).with_for_update())
    if role is None:
        raise NotFoundError
    return role


def _holders(name: str) -> Select[str]:
    return select(UserRole.user_id).where(UserRole.role_name == name)


def _build_view(role: Role) -> RoleView:
    return RoleView(
        name=role.name,
        scopes=tuple(role.scopes.split()),
        description=role.description,
        created_at=role.created_at,
    )


async def _update(db: AsyncSession, role: Role, granted: str, description: str) -> None:
    """Write a role's new values, unless holders or administrators forbid it."""
    await require_holders_fit(db, role.name, granted)
    before = role.scopes
    values = {"scopes": granted, "description": description}
    await db.execute(update(Role).where(Role.name == role.name).values(values))
    if grants_everything(before) and not grants_everything(granted):
        await require_administrator(db)
