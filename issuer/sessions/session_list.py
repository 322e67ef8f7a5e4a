"""The sessions of a user: the list, the end of some, the limit, and the deletion."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from sqlalchemy import ColumnElement, delete, or_, select, update
from sqlalchemy.ext.asyncio import AsyncSession

from issuer.acts import Act, Caller
from issuer.clock import seconds
from issuer.errors import NotFoundError
from issuer.feed.feed import Position, RevocationFeed
from issuer.foundation import Foundation
from issuer.http.authorization.principals import Principal
from issuer.sessions.key_ending import delete_ended_keys
from issuer.sessions.logout import Logout, require_person
from issuer.sessions.session_ending import SessionEnding, SessionsToEnd
from issuer.storage.lifetimes import lies_ahead
from issuer.storage.tables.sessions import RefreshFamily, Session
from issuer.storage.tables.users import User

#: Sessions deleted in one transaction; other transactions must not wait long.
_PRUNE_BATCH: Final = 500


@dataclass(frozen=True, slots=True)
class SessionView:
    """A session as its owner sees it; times are Unix seconds.

    Attributes:
        sid: in every token of the session.
        client_id: the client that began it.
        device_label: the client's name for itself.
        address: the caller's at the login.
        created_at: time of the login.
        last_used_at: time of the last refresh.
        expires_at: when it ends at the latest.
        idle_expires_at: when it ends without a further refresh.
    """

    sid: str
    client_id: str
    device_label: str
    address: str
    created_at: int
    last_used_at: int
    expires_at: int
    idle_expires_at: int


@dataclass(frozen=True, slots=True)
class SessionLimits:
    """Lifetime and number of sessions; durations in seconds.

    Attributes:
        ttl: the longest life of a session.
        idle_ttl: a session ends after this time without a refresh.
        max_per_user: the most living sessions of a user; 0: no limit.
        retention: how long ended sessions and personal keys are kept.
    """

    ttl: int
    idle_ttl: int
    max_per_user: int
    retention: int


class SessionList:
    """Lists a user's sessions and ends some of them.

    Args:
        base: gives the database, the clock, the audit, the settings and the time to
            prune by.
        ending: ends several sessions.
        logout: ends one session.
        feed: gives the newest position.
    """

    def __init__(
        self,
        base: Foundation,
        ending: SessionEnding,
        logout: Logout,
        feed: RevocationFeed,
    ) -> None:
        self._database = base.database
        self._ending = ending
        self._logout = logout
        self._feed = feed
        self._limits = SessionLimits(
            ttl=base.settings.refresh_ttl,
            idle_ttl=base.settings.refresh_idle_ttl,
            max_per_user=base.settings.max_sessions_per_user,
            retention=base.settings.session_retention,
        )
        self._clock = base.clock
        self._prune_time = base.prune_time
        self._audit = base.audit

    async def list_own(self, principal: Principal) -> Sequence[SessionView]:
        """Return the living sessions of a token's user, last used first.

        Raises:
            ForbiddenError: when the token is a client's own.
            UnavailableError: when the database is away.
        """
        require_person(principal)
        async with self._database.read() as db:
            return await self._list(db, principal.subject)

    async def list_of(self, user_id: str) -> Sequence[SessionView]:
        """Return the living sessions of a user, last used first.

        Raises:
            NotFoundError: when there is no such user.
            UnavailableError: when the database is away.
        """
        async with self._database.read() as db:
            if await db.get(User, user_id) is None:
                raise NotFoundError
            return await self._list(db, user_id)

    async def end_others(self, principal: Principal, caller: Caller) -> Position:
        """End every session of a token's user except the token's own.

        Returns:
            The feed position at which verifiers refuse all tokens of the others.

        Raises:
            ForbiddenError: when the token is a client's own.
            UnavailableError: when the database is away.
        """
        require_person(principal)
        user_id, now = principal.subject, seconds(self._clock)
        others = select(Session.sid).where(
            Session.user_id == user_id,
            Session.ended_at.is_(None),
            Session.sid != principal.sid,
        )
        async with self._database.write() as db:
            # Locked: a login comes either before this and is ended, or after it.
            await db.scalar(select(User.id).where(User.id == user_id).with_for_update())
            sids = (await db.scalars(others)).all()
            ended = await self._end(db, sids, "logout", now)
            for sid in ended:
                await self._record(db, user_id, sid, user_id, caller)
            if ended:
                return await self._ending.publish_sids(db, ended, now)
        return await self._feed.head_position()

    async def end_of(
        self, user_id: str, sid: str, caller: Caller, *, actor: str
    ) -> Position:
        """End one session of a user; return a feed position.

        Raises:
            NotFoundError: when the user has no such living session.
            UnavailableError: when the database is away.
        """
        async with self._database.read() as db:
            owner = await db.scalar(
                select(Session.user_id).where(
                    Session.sid == sid, Session.ended_at.is_(None)
                )
            )
        if owner != user_id:
            raise NotFoundError
        return await self._logout.end_session(sid, caller, actor=actor)

    async def keep_limit(
        self, db: AsyncSession, user_id: str, sid: str, caller: Caller
    ) -> None:
        """End the oldest sessions past the limit, as the last act of a login.

        Args:
            db: the login's transaction, which has locked the user's row.
            user_id: the user.
            sid: the new session, which stays.
            caller: origin of the login.
        """
        limit = self._limits.max_per_user
        if not limit:
            return
        now = seconds(self._clock)
        newest_first = (
            select(Session.sid)
            .where(
                Session.user_id == user_id, Session.sid != sid, *self._is_living(now)
            )
            .order_by(Session.created_at.desc(), Session.sid)
        )
        surplus = (await db.scalars(newest_first.offset(limit - 1))).all()
        ended = await self._end(db, surplus, "limit", now)
        for each in ended:
            await self._record(db, user_id, each, "system", caller, reason="limit")
        if ended:
            await self._ending.publish_sids(db, ended, now)

    async def prune(self) -> int:
        """Delete sessions and personal keys that ended long ago, and return the number.

        Raises:
            UnavailableError: when the database is away.
        """
        await self._redate()
        total = 0
        for delete_some in (self._delete_some, delete_ended_keys):
            deleted = _PRUNE_BATCH
            while deleted >= _PRUNE_BATCH:
                async with self._database.write() as db:
                    before = self._prune_time() - self._limits.retention
                    deleted = await delete_some(db, before)
                total += deleted
        return total

    async def _redate(self) -> None:
        """Set the times of sessions that were opened while the clock was ahead.

        Otherwise they would live until the clock reaches their time, and then for their
        whole lifetime (R53).
        """
        while True:
            async with self._database.write() as db:
                # The time is read after the wait for SQLite's one writer. By an earlier
                # time, a session that was opened meanwhile could seem to be ahead.
                await db.connection()
                now = seconds(self._clock)
                ahead = (
                    select(Session.sid)
                    .where(lies_ahead(Session.created_at, now))
                    .order_by(Session.created_at.desc())
                    .limit(_PRUNE_BATCH)
                )
                sids = (await db.scalars(ahead)).all()
                if not sids:
                    return
                ends_at = now + self._limits.ttl
                # Families first: see `families.py`.
                families = update(RefreshFamily).where(RefreshFamily.sid.in_(sids))
                sessions = update(Session).where(Session.sid.in_(sids))
                await db.execute(families.values(rotated_at=now, expires_at=ends_at))
                await db.execute(
                    sessions.values(
                        created_at=now, last_used_at=now, expires_at=ends_at
                    )
                )

    async def _delete_some(self, db: AsyncSession, before: int) -> int:
        is_long_over = or_(
            Session.ended_at < before,
            Session.expires_at < before,
            Session.last_used_at < before - self._limits.idle_ttl,
        )
        # A session that ended before then also began before then, and the creation time
        # has an index.
        sids = (
            await db.scalars(
                select(Session.sid)
                .where(Session.created_at < before, is_long_over)
                .order_by(Session.created_at)
                .limit(_PRUNE_BATCH)
            )
        ).all()
        concerned = RefreshFamily.sid.in_(sids)
        # The cascade would lock the sessions before their families.
        await db.execute(
            select(RefreshFamily.id)
            .where(concerned)
            .order_by(RefreshFamily.id)
            .with_for_update()
        )
        await db.execute(delete(RefreshFamily).where(concerned))
        chosen = Session.sid.in_(sids)
        await db.execute(
            select(Session.sid).where(chosen).order_by(Session.sid).with_for_update()
        )
        await db.execute(delete(Session).where(chosen))
        return len(sids)

    async def _end(
        self, db: AsyncSession, sids: Sequence[str], reason: str, now: int
    ) -> list[str]:
        which = SessionsToEnd(sids=sids)
        ended = await self._ending.end_sessions(db, which, reason=reason, now=now)
        return sorted(ended.sessions)

    async def _list(self, db: AsyncSession, user_id: str) -> Sequence[SessionView]:
        rows = await db.execute(
            select(
                Session.sid,
                Session.client_id,
                Session.device_label,
                Session.address,
                Session.created_at,
                Session.last_used_at,
                Session.expires_at,
                Session.last_used_at + self._limits.idle_ttl,
            )
            .where(Session.user_id == user_id, *self._is_living(seconds(self._clock)))
            .order_by(Session.last_used_at.desc(), Session.sid)
        )
        return [SessionView(*row) for row in rows]

    def _is_living(self, now: int) -> tuple[ColumnElement[bool], ...]:
        return (
            Session.ended_at.is_(None),
            Session.expires_at > now,
            Session.last_used_at > now - self._limits.idle_ttl,
            Session.last_used_at < now + self._limits.idle_ttl,
        )

    async def _record(
        self,
        db: AsyncSession,
        user_id: str,
        sid: str,
        actor: str,
        caller: Caller,
        **facts: str,
    ) -> None:
        act = Act("session.ended", actor, user_id, {"sid": sid, **facts})
        await self._audit(db, act, caller)
