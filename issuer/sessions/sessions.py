"""Sessions: opened by a login, continued by refresh tokens.

What must survive a refusal is committed before the refusal is raised (requirement R42).
Lock order: see `families.py`.
"""

from __future__ import annotations

import uuid
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final, NamedTuple

from sqlalchemy import insert, update
from sqlalchemy.ext.asyncio import AsyncSession

from issuer.acts import Act, AuditWriter, Caller
from issuer.clock import Clock, seconds
from issuer.errors import (
    InvalidGrantError,
    ReuseDetectedError,
    TooManyRequestsError,
    UnauthenticatedError,
)
from issuer.feed.feed import Position
from issuer.http.authorization.principals import Principal
from issuer.http.authorization.scopes import format_scope, parse_scope, require_subset
from issuer.sessions.families import Exchanged, RefreshFamilies, Refused
from issuer.sessions.quick_rotation import QuickRotation, Rotated
from issuer.sessions.refresh import Expired, PresentedToken, Reuse, Revoked
from issuer.sessions.session_ending import SessionEnding, SessionsToEnd
from issuer.sessions.session_list import SessionList
from issuer.storage.db import Database
from issuer.storage.rate_limits import RateLimit, RateLimits
from issuer.storage.tables.sessions import Session
from issuer.tokens.access import AccessGrant, AccessTokens
from issuer.tokens.subjects import Subject, load_subject

#: The `client_id` of people who log in at the issuer itself.
FIRST_PARTY_CLIENT_ID: Final = "gatehouse"


@dataclass(frozen=True, slots=True)
class TokenPair:
    """What a login or a refresh answers; `expires_in` is in seconds."""

    access_token: str
    expires_in: int
    refresh_token: str
    scope: str


@dataclass(frozen=True, slots=True)
class OpenSession:
    """A session that goes on: what its next access token says, and its refresh token.

    Attributes:
        grant: what the access token says of its bearer.
        refresh_token: the session's next one.
        now: Unix seconds at which the transaction was begun; the token's `iat`.
    """

    grant: AccessGrant
    refresh_token: str
    now: int


class Sessions:
    """Opens and continues sessions.

    Args:
        database: where they are kept.
        families: the refresh tokens.
        quick_rotation: exchanges those that nothing speaks against.
        access_tokens: mints the access tokens.
        ending: ends what must end.
        session_list: keeps a user's sessions to a number.
        limits: how often one is refreshed, and a user may open one.
        clock: gives the time in milliseconds.
        audit: records each act with the act.
        refresh_ttl: a session's absolute lifetime, seconds.
        count_refresh: told the outcome of each refresh in one word.
    """

    def __init__(
        self,
        database: Database,
        families: RefreshFamilies,
        quick_rotation: QuickRotation,
        access_tokens: AccessTokens,
        ending: SessionEnding,
        session_list: SessionList,
        limits: RateLimits,
        *,
        clock: Clock,
        audit: AuditWriter,
        refresh_ttl: int,
        count_refresh: Callable[[str], None],
    ) -> None:
        self._database = database
        self._families = families
        self._quick_rotation = quick_rotation
        self._access_tokens = access_tokens
        self._ending = ending
        self._session_list = session_list
        self._limits = limits
        self._clock = clock
        self._audit = audit
        self._refresh_ttl = refresh_ttl
        self._count_refresh = count_refresh

    async def open(
        self,
        db: AsyncSession,
        subject: Subject,
        caller: Caller,
        *,
        scope: str | None = None,
        amr: tuple[str, ...] = (),
    ) -> OpenSession:
        """Open a session for a user whose password was just verified.

        Args:
            db: the write transaction in which `subject` was loaded, locked.
            subject: the user, enabled.
            caller: where the login came from.
            scope: what it is granted of the subject's scope, space-delimited; None: all.
            amr: the methods of the login (RFC 8176).

        Raises:
            TooManyRequestsError: when the user has opened too many of late.
        """
        await self._limits.sessions.take(db, subject.user_id)
        now = seconds(self._clock)
        granted = subject.scope
        if scope is not None:
            granted = format_scope(_find_granted(scope, subject))
        methods = " ".join(amr) or None
        sid = str(uuid.uuid4())
        expires_at = now + self._refresh_ttl
        await db.execute(
            insert(Session).values(
                sid=sid,
                user_id=subject.user_id,
                client_id=FIRST_PARTY_CLIENT_ID,
                device_label=caller.device_label,
                address=caller.address,
                created_at=now,
                last_used_at=now,
                expires_at=expires_at,
                amr=methods,
            )
        )
        refresh_token = await self._families.start(
            db,
            sid=sid,
            client_id=FIRST_PARTY_CLIENT_ID,
            scope=granted,
            now=now,
            expires_at=expires_at,
        )
        login = _LoginOf(subject.user_id, now, expires_at, methods)
        grant = _build_grant(subject, sid, login, granted)
        return OpenSession(grant, refresh_token, now)

    async def answer(self, session: OpenSession) -> TokenPair:
        """Return the tokens of a session whose transaction is committed.

        Raises:
            UnavailableError: when there is no signing key. The session stands: a
                refresh that is tried again gets the same successor.
        """
        minted = await self._access_tokens.mint(session.grant, session.now)
        return TokenPair(
            access_token=minted.access_token,
            expires_in=minted.expires_in,
            refresh_token=session.refresh_token,
            scope=session.grant.scope,
        )

    async def refresh(
        self,
        token: str,
        caller: Caller,
        *,
        client_id: str = FIRST_PARTY_CLIENT_ID,
        scope: str | None = None,
    ) -> TokenPair:
        """Exchange a refresh token for its successor and a new access token.

        A spent token ends its session: committed, then refused (RFC 9700, 4.14.2).

        Args:
            token: as presented.
            caller: where it comes from.
            client_id: the client that presents it.
            scope: the part of its scope the access token shall have, space-delimited;
                None: all of it. The successor keeps it whole (RFC 6749, section 6).

        Raises:
            InvalidGrantError: when the token is not ours, another client's, expired or
                revoked, or its user is disabled.
            InvalidScopeError: when more is wanted than was granted; the token is not
                spent then.
            ReuseDetectedError: when it was spent.
            TooManyRequestsError: when the session is refreshed too often; the token is
                not spent then.
            UnavailableError: when the database is away.
        """
        now = seconds(self._clock)
        try:
            presented = self._families.parse(token)
        except InvalidGrantError:
            self._count_refresh("unknown")
            raise
        wanted = None if scope is None else parse_scope(scope)
        if wanted is None:
            # Not so when a part is wanted: wanting too much must not spend the token.
            rotated = await self._quick_rotation.rotate(
                presented, now, client_id=client_id
            )
            if rotated is not None:
                self._count_refresh("rotated")
                return await self.answer(_go_on(rotated, now))
        async with self._database.write() as db:
            outcome = await self._families.exchange(
                db, presented, now, client_id=client_id
            )
            if isinstance(outcome, Exchanged):
                session = await self._continue(db, outcome, wanted, now)
            elif outcome.sid is not None and isinstance(outcome.decision, Reuse):
                await self._end_reused(db, outcome.sid, presented, now, caller)
        if isinstance(outcome, Refused):
            raise self._refuse(outcome)
        self._count_refresh("repeated" if outcome.is_repeat else "rotated")
        return await self.answer(session)

    async def start_over(
        self, db: AsyncSession, principal: Principal, *, keep_keys: bool
    ) -> tuple[OpenSession, Position]:
        """End every session and personal key of a user but this session.

        It gets new tokens.

        It is granted what it was at its login: a narrow session stays narrow.

        Publishes to the feed, so these are the transaction's last statements.

        Args:
            db: the write transaction in which the caller raised the user's generation.
            principal: the user, who proved the password just now.
            keep_keys: whether the personal keys go on. Their tokens of before do not.

        Returns:
            This session, and the feed position that ends all else.

        Raises:
            UnauthenticatedError: when this session has ended meanwhile.
        """
        now = seconds(self._clock)
        user_id, sid = principal.subject, principal.sid
        which = SessionsToEnd(user_ids=[user_id], keep_sid=sid, keep_keys=keep_keys)
        await self._ending.end_sessions(db, which, reason="start_over", now=now)
        subject = await load_subject(db, user_id)
        login = await _touch(db, sid, now)
        scope = await self._families.find_scope(db, sid)
        if subject is None or login is None or scope is None:
            raise UnauthenticatedError(detail="the session has ended meanwhile")
        granted = format_scope(_find_granted(scope, subject))
        refresh_token = await self._families.start(
            db,
            sid=sid,
            client_id=principal.client_id,
            scope=granted,
            now=now,
            expires_at=login.expires_at,
        )
        grant = _build_grant(subject, sid, login, granted)
        position = await self._ending.publish_generation(
            db, user_id, subject.generation, now
        )
        return OpenSession(grant, refresh_token, now), position

    async def keep_limit(
        self, db: AsyncSession, session: OpenSession, caller: Caller
    ) -> None:
        """End the user's oldest sessions when this one is past the limit.

        Publishes to the feed, so it is the last act of a login's transaction.
        """
        grant = session.grant
        await self._session_list.keep_limit(db, grant.subject, grant.sid, caller)

    async def _continue(
        self,
        db: AsyncSession,
        exchanged: Exchanged,
        wanted: frozenset[str] | None,
        now: int,
    ) -> OpenSession:
        """Raising here takes the rotation back: nothing has happened."""
        limit = None if exchanged.is_repeat else self._limits.refreshes
        login = await _touch(db, exchanged.sid, now, limit)
        if login is not None and limit is not None:
            self._require_within(limit, login, now)
        subject = await load_subject(db, login.user_id) if login else None
        if login is None or subject is None or subject.is_disabled:
            raise self._refuse(Refused(Revoked()))
        granted = _find_granted(exchanged.scope, subject)
        if wanted is not None:
            granted = require_subset(wanted, granted)
        grant = _build_grant(subject, exchanged.sid, login, format_scope(granted))
        return OpenSession(grant, exchanged.refresh_token, now)

    def _require_within(self, limit: RateLimit, login: _LoginOf, now: int) -> None:
        try:
            limit.require(login.refreshes_until or 0, now * 1_000)
        except TooManyRequestsError:
            self._count_refresh("limited")
            raise

    async def _end_reused(
        self,
        db: AsyncSession,
        sid: str,
        presented: PresentedToken,
        now: int,
        caller: Caller,
    ) -> None:
        ended = await self._ending.end_sessions(
            db, SessionsToEnd(sids=[sid]), reason="reuse", now=now
        )
        user_id = ended.sessions.get(sid)
        if user_id is None:
            return  # another replay of the same family was first
        facts: dict[str, str | int] = {
            "sid": sid,
            "family_id": presented.family_id,
            "generation": presented.generation,
        }
        # Nobody knows which of the two bearers is the thief.
        act = Act("refresh.reused", actor="unknown", subject=user_id, facts=facts)
        await self._audit(db, act, caller)
        await self._ending.publish_sids(db, [sid], now)

    def _refuse(self, refused: Refused) -> InvalidGrantError:
        outcomes = {Reuse: "reused", Expired: "expired", Revoked: "revoked"}
        outcome = outcomes[type(refused.decision)]
        self._count_refresh(outcome)
        error = ReuseDetectedError if outcome == "reused" else InvalidGrantError
        return error(detail=f"the refresh token is {outcome}")


class _LoginOf(NamedTuple):
    """A session as its login made it; `amr` is space-delimited."""

    user_id: str
    created_at: int
    expires_at: int
    amr: str | None
    refreshes_until: int | None = None


async def _touch(
    db: AsyncSession, sid: str, now: int, limit: RateLimit | None = None
) -> _LoginOf | None:
    """Note that a living session is used, which locks its row; None when it has ended.

    With a limit, a refresh is counted: here and not apart, since the row is written anyway.
    """
    values: dict[str, Any] = {"last_used_at": now}
    if limit is not None:
        values["refreshes_until"] = limit.taken(Session.refreshes_until, now * 1_000)
    row = (
        await db.execute(
            update(Session)
            .where(Session.sid == sid, Session.ended_at.is_(None))
            .values(values)
            .returning(
                Session.user_id,
                Session.created_at,
                Session.expires_at,
                Session.amr,
                Session.refreshes_until,
            )
        )
    ).one_or_none()
    return None if row is None else _LoginOf(*row)


def _go_on(rotated: Rotated, now: int) -> OpenSession:
    subject = rotated.subject
    login = _LoginOf(
        subject.user_id, rotated.created_at, rotated.expires_at, rotated.amr
    )
    scope = format_scope(_find_granted(rotated.scope, subject))
    grant = _build_grant(subject, rotated.sid, login, scope)
    return OpenSession(grant, rotated.refresh_token, now)


def _find_granted(scope: str, subject: Subject) -> frozenset[str]:
    """RFC 6749, section 6: never more than was granted; nor than the roles grant now."""
    return frozenset(scope.split()) & frozenset(subject.scope.split())


def _build_grant(
    subject: Subject, sid: str, login: _LoginOf, scope: str
) -> AccessGrant:
    return AccessGrant(
        subject=subject.user_id,
        client_id=FIRST_PARTY_CLIENT_ID,
        sid=sid,
        generation=subject.generation,
        scope=scope,
        roles=subject.roles,
        auth_time=login.created_at,
        not_after=login.expires_at,
        username=subject.username,
        amr=tuple((login.amr or "").split()),
    )
