"""Creates and reads user accounts. `user_list.py` lists, `user_changes.py` changes."""

from __future__ import annotations

import uuid
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Final

from sqlalchemy import ColumnElement, insert, select
from sqlalchemy.exc import IntegrityError
from sqlalchemy.ext.asyncio import AsyncSession

from issuer.accounts.look_alikes import LookAlikes, skeleton_values
from issuer.accounts.names import normalise_username, read_new_username
from issuer.acts import Act, Caller
from issuer.clock import seconds
from issuer.errors import ConflictError, NotFoundError
from issuer.foundation import Foundation
from issuer.hashing.new_passwords import NewPasswords
from issuer.roles.roles import ADMIN_ROLE, ensure_admin_role, require_roles
from issuer.storage.tables.roles import UserRole
from issuer.storage.tables.users import User

#: Stored without a password; no password matches it.
NO_PASSWORD: Final = ""


@dataclass(frozen=True, slots=True)
class UserView:
    """A user account without its secrets; times are Unix seconds.

    Without a password the user cannot log in until a reset link has set one.
    """

    id: str
    username: str
    roles: tuple[str, ...]
    is_disabled: bool
    has_password: bool
    created_at: int
    updated_at: int
    password_changed_at: int
    version: int


class Users:
    """Makes and reads user accounts.

    Args:
        base: gives the database, the clock, the audit and the settings.
        new_passwords: checks and hashes them.
    """

    def __init__(self, base: Foundation, new_passwords: NewPasswords) -> None:
        self._database = base.database
        self._new_passwords = new_passwords
        self._clock = base.clock
        self._audit = base.audit
        self._look_alikes = LookAlikes(base.database)

    async def create(
        self,
        username: str,
        password: str | None,
        roles: Sequence[str] = (),
        *,
        actor: str,
        caller: Caller,
    ) -> UserView:
        """Make an account and return it.

        Args:
            username: as typed.
            password: as typed; None for an account that gets one by a reset link.
            roles: names of roles that exist.
            actor: the maker's sub or client_id, or `system`.
            caller: origin of the request.

        Raises:
            InvalidRequestError: when the name, the password or a role breaks a rule.
            ConflictError: when the name is taken, or looks like one that is.
            UnavailableError: when the hashing queue is full or the database is away.
        """
        name = read_new_username(username)
        password_hash = await self._hash_new(name, password)
        now = seconds(self._clock)
        user_id = str(uuid.uuid4())
        try:
            async with self._database.write() as db:
                await require_roles(db, roles)
                await self._look_alikes.require_distinct(db, [name])
                await _insert(db, user_id, name, password_hash, now)
                await give_roles(db, user_id, roles)
                facts = {"roles": " ".join(sorted(set(roles)))}
                act = Act("user.created", actor, user_id, facts)
                await self._audit(db, act, caller)
        except IntegrityError:
            # The roles are held, so it can only be the name.
            raise ConflictError("The user name is taken.") from None
        return await self.get(user_id)

    async def _hash_new(self, name: str, password: str | None) -> str:
        if password is None:
            return NO_PASSWORD
        return await self._new_passwords.hash(password, name, field="password")

    async def create_admin(
        self, username: str, password: str, *, caller: Caller
    ) -> UserView:
        """Make an account with the role `admin`, and the role if it does not exist.

        Raises:
            InvalidRequestError: when the name or the password breaks a rule.
            ConflictError: when the name is taken.
            UnavailableError: when the database is away.
        """
        async with self._database.write() as db:
            await ensure_admin_role(db, seconds(self._clock))
        return await self.create(
            username, password, [ADMIN_ROLE], actor="system", caller=caller
        )

    async def get(self, user_id: str) -> UserView:
        """Return the user with this id.

        Raises:
            NotFoundError: when there is none.
            UnavailableError: when the database is away.
        """
        return await self._get(User.id == user_id)

    async def find(self, username: str) -> UserView:
        """Return the user of this name, in any spelling of it.

        Raises:
            InvalidRequestError: when it cannot be a user name.
            NotFoundError: when there is none.
            UnavailableError: when the database is away.
        """
        return await self._get(User.username == normalise_username(username))

    async def _get(self, which: ColumnElement[bool]) -> UserView:
        async with self._database.read() as db:
            user = await db.scalar(select(User).where(which))
            if user is None:
                raise NotFoundError
            held = await read_roles(db, [user.id])
        return build_view(user, held.get(user.id, []))


async def _insert(
    db: AsyncSession, user_id: str, name: str, password_hash: str, now: int
) -> None:
    await db.execute(
        insert(User).values(
            id=user_id,
            username=name,
            **skeleton_values(name),
            password_hash=password_hash,
            generation=0,
            version=1,
            created_at=now,
            updated_at=now,
            password_changed_at=now,
        )
    )


async def give_roles(db: AsyncSession, user_id: str, roles: Iterable[str]) -> None:
    """Give the user these roles, which `require_roles` has locked."""
    rows = [{"user_id": user_id, "role_name": role} for role in sorted(set(roles))]
    if rows:
        await db.execute(insert(UserRole), rows)


async def read_roles(db: AsyncSession, user_ids: Sequence[str]) -> dict[str, list[str]]:
    """Return the names of the roles that each of these users holds, sorted."""
    rows = await db.execute(
        select(UserRole.user_id, UserRole.role_name)
        .where(UserRole.user_id.in_(user_ids))
        .order_by(UserRole.role_name)
    )
    held: dict[str, list[str]] = {}
    for user_id, role in rows:
        held.setdefault(user_id, []).append(role)
    return held


def build_view(user: User, roles: Sequence[str]) -> UserView:
    """Return the account without its secrets."""
    return UserView(
        id=user.id,
        username=user.username,
        roles=tuple(roles),
        is_disabled=user.disabled_at is not None,
        has_password=user.password_hash != NO_PASSWORD,
        created_at=user.created_at,
        updated_at=user.updated_at,
        password_changed_at=user.password_changed_at,
        version=user.version,
    )
