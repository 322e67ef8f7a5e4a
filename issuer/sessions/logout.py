"""Logout. Verifiers refuse the tokens of an ended session once they have the entry.

One transaction ends a session in three places: its row, its refresh family and the
feed. A logout everywhere also ends the user's personal keys (`session_ending.py`). Lock
order: see `families.py`.
"""

from __future__ import annotations

from sqlalchemy import select, update
from sqlalchemy.ext.asyncio import AsyncSession

from issuer.acts import Act, Caller
from issuer.clock import seconds
from issuer.errors import (
    ForbiddenError,
    InvalidGrantError,
    InvalidRequestError,
    NotFoundError,
)
from issuer.feed.feed import Position, RevocationFeed
from issuer.foundation import Foundation
from issuer.http.authorization.principals import Principal
from issuer.sessions.ended import find_done_sids, find_done_users
from issuer.sessions.families import FamilyOwner, RefreshFamilies
from issuer.sessions.session_ending import SessionEnding, SessionsToEnd
from issuer.storage.tables.sessions import Session
from issuer.storage.tables.users import User
from shared.claims import MAX_IDENTIFIER_CHARS, is_identifier


class Logout:
    """Ends one session of a user, or all of them with the personal keys.

    Each of these methods returns a feed position. A verifier that has applied it
    refuses every token of the ended sessions and keys.

    Args:
        base: gives the database, the clock and the audit.
        families: find the owner of a refresh token.
        ending: ends sessions and personal keys.
        feed: gives the newest position.
    """

    def __init__(
        self,
        base: Foundation,
        families: RefreshFamilies,
        ending: SessionEnding,
        feed: RevocationFeed,
    ) -> None:
        self._database = base.database
        self._families = families
        self._ending = ending
        self._feed = feed
        self._clock = base.clock
        self._audit = base.audit

    async def log_out(self, principal: Principal, caller: Caller) -> Position:
        """End the session of an access token.

        Raises:
            ForbiddenError: when the token is a client's own, which has no session.
            UnavailableError: when the database is away.
        """
        require_person(principal)
        return await self.end_session(principal.sid, caller)

    async def log_out_by_refresh(self, token: str, caller: Caller) -> Position:
        """End the session of a refresh token.

        A spent or expired token is accepted too: it can end only its own session.

        Raises:
            InvalidGrantError: when the token is not ours.
            UnavailableError: when the database is away.
        """
        owner = await self.find_owner(token)
        return await self.end_session(owner.sid, caller)

    async def find_owner(self, token: str) -> FamilyOwner:
        """Return the owner of a refresh token, which may be spent or expired.

        Raises:
            InvalidGrantError: when the token is not ours.
            UnavailableError: when the database is away.
        """
        async with self._database.read() as db:
            owner = await self._families.find_owner(db, token)
        if owner is None:
            raise InvalidGrantError(detail="the family is gone")
        return owner

    async def end_own(self, principal: Principal, sid: str, caller: Caller) -> Position:
        """End one of a user's own sessions.

        Raises:
            ForbiddenError: when the token is a client's own.
            NotFoundError: when the user has no such living session.
            UnavailableError: when the database is away.
        """
        require_person(principal)
        async with self._database.read() as db:
            owner = await db.scalar(
                select(Session.user_id).where(
                    Session.sid == sid, Session.ended_at.is_(None)
                )
            )
        if owner != principal.subject:
            raise NotFoundError
        return await self.end_session(sid, caller)

    async def end_session(
        self, sid: str, caller: Caller, *, actor: str | None = None
    ) -> Position:
        """End a session.

        Args:
            sid: the session.
            caller: origin of the request.
            actor: subject of the actor; None: the session's user.

        Raises:
            UnavailableError: when the database is away.
        """
        now = seconds(self._clock)
        async with self._database.write() as db:
            ended = await self._ending.end_sessions(
                db, SessionsToEnd(sids=[sid]), reason="logout", now=now
            )
            user_id = ended.sessions.get(sid)
            if user_id is not None:
                act = _ended(user_id, sid, actor or user_id)
                await self._audit(db, act, caller)
                return await self._ending.publish_sids(db, [sid], now)
        # Another request ended it. Its entry is committed: the head is at or past it.
        return await self._feed.head_position()

    async def end_any(self, sid: str, caller: Caller, *, actor: str) -> Position:
        """End the session, the personal key or the client's grant with this sid.

        A grant has no row, so only the entry in the feed is written. A repeated call
        writes nothing: the existing entry outlives every token of this sid.

        Raises:
            InvalidRequestError: when the text cannot be a sid.
            UnavailableError: when the database is away.
        """
        require_identifier("sid", sid)
        now = seconds(self._clock)
        async with self._database.read() as db:
            is_done = sid in await find_done_sids(db, [sid])
        if is_done:
            return await self._feed.head_position()
        async with self._database.write() as db:
            # The sid of a personal key's tokens is the key's id. A living key could be
            # exchanged again after the entry is pruned (R50).
            ended = await self._ending.end_sessions(
                db, SessionsToEnd(sids=[sid]), reason="revoked", now=now
            )
            user_id = (ended.sessions | ended.keys).get(sid, "")
            await self._audit(db, _ended(user_id, sid, actor), caller)
            return await self._ending.publish_sids(db, [sid], now)

    async def log_out_everywhere(
        self, user_id: str, caller: Caller, *, actor: str
    ) -> Position:
        """End all sessions and personal keys of a user.

        A repeated call writes nothing, as long as no session or key has begun.

        Raises:
            NotFoundError: when there is no such user.
            UnavailableError: when the database is away.
        """
        now = seconds(self._clock)
        async with self._database.read() as db:
            is_done = await self.is_logged_out(db, user_id, now)
        if is_done:
            return await self._feed.head_position()
        async with self._database.write() as db:
            generation = await db.scalar(
                update(User)
                .where(User.id == user_id)
                .values(generation=User.generation + 1, updated_at=now)
                .returning(User.generation)
            )
            if generation is None:
                raise NotFoundError
            everything = SessionsToEnd(user_ids=[user_id])
            await self._ending.end_sessions(
                db, everything, reason="logout_all", now=now
            )
            act = Act("user.logged_out_everywhere", actor=actor, subject=user_id)
            await self._audit(db, act, caller)
            return await self._ending.publish_generation(db, user_id, generation, now)

    async def is_logged_out(self, db: AsyncSession, user_id: str, now: int) -> bool:
        """Return whether a user has nothing left to end: the feed has the entry.

        Raises:
            NotFoundError: when there is no such user.
        """
        generation = await db.scalar(select(User.generation).where(User.id == user_id))
        if generation is None:
            raise NotFoundError
        return bool(await find_done_users(db, {user_id: generation}, now))

    async def newest_position(self) -> Position:
        """Return a position at or past every revocation until now.

        Raises:
            UnavailableError: when the database is away.
        """
        return await self._feed.head_position()


def require_person(principal: Principal) -> None:
    """Return when the token belongs to a user's session.

    Raises:
        ForbiddenError: when it is a client's own, or was exchanged for a personal key.
            A key that could change its owner's account would grant more than its
            scopes.
    """
    if principal.is_client or principal.is_personal_key:
        raise ForbiddenError("Only the access token of a session will do here.")


def require_identifier(field: str, text: str) -> None:
    """Return when `text` can be a key in the feed.

    A verifier refuses a page with any other key, and so every later page.

    Raises:
        InvalidRequestError: when it cannot.
    """
    if not is_identifier(text):
        rule = f"must have 1 to {MAX_IDENTIFIER_CHARS} characters, none of them unseen"
        if text.count(".") == 2:
            rule += "; give the claim of this name, not the token"
        raise InvalidRequestError.of_field(field, rule)


def _ended(user_id: str, sid: str, actor: str) -> Act:
    return Act("session.ended", actor=actor, subject=user_id, facts={"sid": sid})
