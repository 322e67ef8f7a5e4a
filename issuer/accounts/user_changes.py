"""Changes of user accounts, and the revocation of their tokens.

An access token has name and roles until it expires. So a renamed user, or one who loses
a role, gets a new generation in the same transaction, and verifiers refuse all older
tokens: another user may get the name later. The sessions continue with the next
refresh. Disabling or deleting a user also ends the sessions. A new role ends nothing:
the next refresh has it, and the next login grants its scopes.

Lock order: administrators, roles, then as in `families.py`.

`UserChanges.change` is over 40 lines: it documents its arguments and errors.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from sqlalchemy import delete, select, update
from sqlalchemy.exc import IntegrityError
from sqlalchemy.ext.asyncio import AsyncSession

from issuer.accounts.look_alikes import LookAlikes, skeleton_values
from issuer.accounts.names import normalise_username, require_visible
from issuer.accounts.users import UserView, build_view, give_roles, read_roles
from issuer.acts import Act, Caller
from issuer.clock import seconds
from issuer.credentials.password_proof import hold_proved
from issuer.errors import ConflictError, NotFoundError
from issuer.feed.feed import Position
from issuer.foundation import Foundation
from issuer.roles.administrators import (
    is_administrator,
    lock_administrators,
    require_administrator,
)
from issuer.roles.roles import require_roles
from issuer.sessions.logout import Logout
from issuer.sessions.session_ending import SessionEnding, SessionsToEnd
from issuer.storage.tables.personal_keys import PersonalKey
from issuer.storage.tables.roles import UserRole
from issuer.storage.tables.sessions import RefreshFamily, Session
from issuer.storage.tables.users import User

#: Raises when the account is not in the state that the changer saw.
ExpectUser = Callable[[UserView], None]


@dataclass(frozen=True, slots=True)
class UserChange:
    """A change of an account; None: no change.

    Attributes:
        username: as typed.
        roles: all roles after the change.
    """

    username: str | None = None
    roles: Sequence[str] | None = None


class Changed(NamedTuple):
    """An account after its change.

    Attributes:
        user: the account.
        position: feed position that ends its older access tokens; None if none ended.
    """

    user: UserView
    position: Position | None


class UserChanges:
    """Changes, disables, enables and deletes user accounts.

    In every method `expect` may raise `PreconditionFailedError`, and then nothing
    changes; `actor` is the changer, `caller` the origin of the request.

    Args:
        base: gives the database, the clock and the audit.
        logout: finds out what has ended before.
        ending: ends sessions and tells the verifiers.
    """

    def __init__(self, base: Foundation, logout: Logout, ending: SessionEnding) -> None:
        self._database = base.database
        self._logout = logout
        self._ending = ending
        self._clock = base.clock
        self._audit = base.audit
        self._look_alikes = LookAlikes(base.database)

    async def change(
        self,
        user_id: str,
        change: UserChange,
        expect: ExpectUser,
        *,
        actor: str,
        caller: Caller,
        proved: User | None = None,
    ) -> Changed:
        """Rename the account, or give it other roles.

        Args:
            user_id: the account's id.
            change: its new name or roles.
            expect: raises when the account is not in the state that the changer saw.
            actor: subject of the changer.
            caller: origin of the request.
            proved: the user after a right password; None when no proof is needed.

        Raises:
            InvalidRequestError: when the name or a role is refused.
            NotFoundError: when there is no such user.
            PreconditionFailedError: from `expect`.
            ConflictError: when the name is taken or looks like one that is, or when
                the account has changed since the proof.
            LastAdministratorError: when no administrator would be left.
            UnavailableError: when the database is away.
        """
        name = None if change.username is None else normalise_username(change.username)
        try:
            async with self._database.write() as db:
                await lock_administrators(self._database, db)
                await require_roles(db, change.roles or ())
                before = await _lock(db, user_id)
                if proved is not None:
                    await hold_proved(db, proved)
                expect(before)
                return await self._apply(db, before, name, change.roles, actor, caller)
        except IntegrityError:
            # The roles are held, so it can only be the name.
            raise ConflictError("The user name is taken.") from None

    async def disable(
        self, user_id: str, expect: ExpectUser, *, actor: str, caller: Caller
    ) -> Changed:
        """Disable the user's logins, and end all sessions and keys.

        A repeated call writes nothing.

        Raises:
            NotFoundError: when there is no such user.
            PreconditionFailedError: from `expect`.
            LastAdministratorError: when no administrator would be left.
            UnavailableError: when the database is away.
        """
        now = seconds(self._clock)
        async with self._database.write() as db:
            await lock_administrators(self._database, db)
            before = await _lock(db, user_id)
            expect(before)
            is_done = before.is_disabled and await self._logout.is_logged_out(
                db, user_id, now
            )
            if not is_done:
                return await self._disable(db, before, actor, caller, now)
        return Changed(before, await self._logout.newest_position())

    async def _disable(
        self, db: AsyncSession, before: UserView, actor: str, caller: Caller, now: int
    ) -> Changed:
        user_id = before.id
        was_administrator = await is_administrator(db, user_id)
        values: dict[str, Any] = {}
        if not before.is_disabled:
            values = {"disabled_at": now}
        user, generation = await _update(db, before, values, now=now, is_revoking=True)
        everything = SessionsToEnd(user_ids=[user_id])
        await self._ending.end_sessions(db, everything, reason="disabled", now=now)
        if was_administrator:
            await require_administrator(db)
        await self._audit(db, Act("user.disabled", actor, user_id), caller)
        position = await self._ending.publish_generation(db, user_id, generation, now)
        return Changed(user, position)

    async def enable(
        self, user_id: str, expect: ExpectUser, *, actor: str, caller: Caller
    ) -> Changed:
        """Enable a disabled user's logins. Ended sessions stay ended.

        Raises:
            NotFoundError: when there is no such user.
            PreconditionFailedError: from `expect`.
            UnavailableError: when the database is away.
        """
        async with self._database.write() as db:
            before = await _lock(db, user_id)
            expect(before)
            if not before.is_disabled:
                return Changed(before, None)
            now = seconds(self._clock)
            user, _ = await _update(db, before, {"disabled_at": None}, now=now)
            await self._audit(db, Act("user.enabled", actor, user_id), caller)
        return Changed(user, None)

    async def delete(
        self, user_id: str, expect: ExpectUser, *, actor: str, caller: Caller
    ) -> Position:
        """Delete the account with all its rows; return a feed position.

        The audit log keeps its events, under the id.

        Raises:
            NotFoundError: when there is no such user.
            PreconditionFailedError: from `expect`.
            LastAdministratorError: when no administrator would be left.
            UnavailableError: when the database is away.
        """
        now = seconds(self._clock)
        async with self._database.write() as db:
            await lock_administrators(self._database, db)
            before = await _lock(db, user_id)
            expect(before)
            was_administrator = await is_administrator(db, user_id)
            _, generation = await _update(db, before, {}, now=now, is_revoking=True)
            # Explicit, because the cascade would lock the sessions before their
            # families.
            sids = select(Session.sid).where(Session.user_id == user_id)
            await db.execute(delete(RefreshFamily).where(RefreshFamily.sid.in_(sids)))
            await db.execute(delete(Session).where(Session.user_id == user_id))
            await db.execute(delete(PersonalKey).where(PersonalKey.user_id == user_id))
            await db.execute(delete(User).where(User.id == user_id))
            if was_administrator:
                await require_administrator(db)
            facts: dict[str, str | int] = {"username": before.username}
            await self._audit(db, Act("user.deleted", actor, user_id, facts), caller)
            return await self._ending.publish_generation(db, user_id, generation, now)

    async def _apply(
        self,
        db: AsyncSession,
        before: UserView,
        name: str | None,
        roles: Sequence[str] | None,
        actor: str,
        caller: Caller,
    ) -> Changed:
        name = before.username if name is None else name
        held, wanted = set(before.roles), set(before.roles if roles is None else roles)
        if name == before.username and held == wanted:
            return Changed(before, None)
        was_administrator = await is_administrator(db, before.id)
        lost, gained = held - wanted, wanted - held
        now = seconds(self._clock)
        is_revoking = bool(lost) or name != before.username
        await _take_roles(db, before.id, lost)
        await give_roles(db, before.id, gained)
        values = {"username": name}
        if name != before.username:
            require_visible(name)
            await self._look_alikes.require_distinct(db, [name], but=before.id)
            values |= skeleton_values(name)
        user, generation = await _update(
            db, before, values, now=now, is_revoking=is_revoking
        )
        if was_administrator and lost:
            await require_administrator(db)
        facts: dict[str, str | int] = {
            "roles_gained": " ".join(sorted(gained)),
            "roles_lost": " ".join(sorted(lost)),
        }
        if name != before.username:
            facts |= {"username_before": before.username, "username": name}
        await self._audit(db, Act("user.changed", actor, before.id, facts), caller)
        if not is_revoking:
            return Changed(user, None)
        position = await self._ending.publish_generation(db, user.id, generation, now)
        return Changed(user, position)


async def _lock(db: AsyncSession, user_id: str) -> UserView:
    """Return the account, locked until the commit: logins wait for it."""
    user = await db.scalar(select(User).where(User.id == user_id).with_for_update())
    if user is None:
        raise NotFoundError
    held = await read_roles(db, [user_id])
    return build_view(user, held.get(user_id, []))


async def _update(
    db: AsyncSession,
    before: UserView,
    values: dict[str, Any],
    *,
    now: int,
    is_revoking: bool = False,
) -> tuple[UserView, int]:
    """Change the row; return the account and its generation."""
    if values:
        values = {**values, "updated_at": now, "version": User.version + 1}
    if is_revoking:
        values = {**values, "generation": User.generation + 1}
    user = await db.scalar(
        update(User)
        .where(User.id == before.id)
        .values(values)
        .returning(User)
        .execution_options(synchronize_session=False, populate_existing=True)
    )
    if user is None:
        raise NotFoundError
    held = await read_roles(db, [user.id])
    return build_view(user, held.get(user.id, [])), user.generation


async def _take_roles(db: AsyncSession, user_id: str, roles: set[str]) -> None:
    if roles:
        await db.execute(
            delete(UserRole).where(
                UserRole.user_id == user_id, UserRole.role_name.in_(roles)
            )
        )
