"""Sessions: opened by logins, continued with refresh tokens.

Writes that must survive a refusal are committed before it is raised (requirement R42).
Lock order: see `families.py`.

`open`, `refresh` and `start_over` are over 40 lines: they document arguments and
errors.
"""

from __future__ import annotations

import uuid
from dataclasses import dataclass

from sqlalchemy.ext.asyncio import AsyncSession

from issuer.acts import Act, Caller
from issuer.clock import seconds
from issuer.errors import (
    InvalidGrantError,
    ReuseDetectedError,
    TooManyRequestsError,
    UnauthenticatedError,
)
from issuer.feed.feed import Position
from issuer.foundation import Foundation
from issuer.http.authorization.principals import Principal
from issuer.http.authorization.scopes import format_scope, parse_scope, require_subset
from issuer.sessions.families import Exchanged, RefreshFamilies, Refused
from issuer.sessions.open_sessions import (
    FIRST_PARTY_CLIENT_ID,
    LoginOf,
    OpenSession,
    build_grant,
    find_granted,
    go_on,
    insert_session,
    touch,
)
from issuer.sessions.quick_rotation import QuickRotation
from issuer.sessions.refresh import Expired, PresentedToken, Reuse, Revoked
from issuer.sessions.session_ending import SessionEnding, SessionsToEnd
from issuer.sessions.session_list import SessionList
from issuer.storage.rate_limits import RateLimit
from issuer.tokens.access import AccessTokens
from issuer.tokens.subjects import Subject, load_subject


@dataclass(frozen=True, slots=True)
class TokenPair:
    """The tokens of a login or a refresh; `expires_in` is in seconds."""

    access_token: str
    expires_in: int
    refresh_token: str
    scope: str


class Sessions:
    """Opens and continues sessions.

    Args:
        base: gives the database, the clock, the audit, the rate limits, the settings
            and the metrics.
        families: the refresh tokens.
        quick_rotation: exchanges tokens in the common case.
        access_tokens: mints the access tokens.
        ending: ends sessions after reuse.
        session_list: limits the number of a user's sessions.
    """

    def __init__(
        self,
        base: Foundation,
        families: RefreshFamilies,
        quick_rotation: QuickRotation,
        access_tokens: AccessTokens,
        ending: SessionEnding,
        session_list: SessionList,
    ) -> None:
        self._database = base.database
        self._families = families
        self._quick_rotation = quick_rotation
        self._access_tokens = access_tokens
        self._ending = ending
        self._session_list = session_list
        self._limits = base.limits
        self._clock = base.clock
        self._audit = base.audit
        self._refresh_ttl = base.settings.refresh_ttl
        self._count_refresh = base.metrics.refresh

    async def open(
        self,
        db: AsyncSession,
        subject: Subject,
        caller: Caller,
        *,
        scope: str | None = None,
        amr: tuple[str, ...] = (),
    ) -> OpenSession:
        """Open a session for a user after a right password.

        Args:
            db: the write transaction that loaded and locked `subject`.
            subject: the user, enabled.
            caller: origin of the login.
            scope: the part of the subject's scope to grant, space-delimited; None: all.
            amr: the methods of the login (RFC 8176).

        Raises:
            TooManyRequestsError: when the user has opened too many recently.
        """
        await self._limits.sessions.take(db, subject.user_id)
        now = seconds(self._clock)
        granted = subject.scope
        if scope is not None:
            granted = format_scope(find_granted(scope, subject))
        sid = str(uuid.uuid4())
        login = LoginOf(
            subject.user_id, now, now + self._refresh_ttl, " ".join(amr) or None
        )
        await insert_session(db, sid, login, caller)
        refresh_token = await self._families.start(
            db,
            sid=sid,
            client_id=FIRST_PARTY_CLIENT_ID,
            scope=granted,
            now=now,
            expires_at=login.expires_at,
        )
        grant = build_grant(subject, sid, login, granted)
        return OpenSession(grant, refresh_token, now)

    async def answer(self, session: OpenSession) -> TokenPair:
        """Return the tokens of a session whose transaction is committed.

        Raises:
            UnavailableError: when there is no signing key. The session remains open: a
                repeated refresh gets the same successor.
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

        A spent token ends its session; that is committed before the refusal is raised
        (RFC 9700, 4.14.2).

        Args:
            token: as presented.
            caller: origin of the request.
            client_id: the client that presents it.
            scope: the requested part of the session's scope, space-delimited; None
                requests all. The successor keeps it whole (RFC 6749, section 6).

        Raises:
            InvalidGrantError: when the token is not ours, another client's, expired or
                revoked, or its user is disabled.
            InvalidScopeError: when the scope exceeds the granted one; the token is not
                spent.
            ReuseDetectedError: when it was spent before.
            TooManyRequestsError: when the session is refreshed too often; the token is
                not spent.
            UnavailableError: when the database is away.
        """
        now = seconds(self._clock)
        presented = self._read(token)
        wanted = None if scope is None else parse_scope(scope)
        # Not for a part of the scope: a request for too much must not spend the token.
        if wanted is None:
            rotated = await self._quick_rotation.rotate(
                presented, now, client_id=client_id
            )
            if rotated is not None:
                self._count_refresh("rotated")
                return await self.answer(go_on(rotated, now))
        return await self._exchange(presented, caller, client_id, wanted, now)

    def _read(self, token: str) -> PresentedToken:
        try:
            return self._families.parse(token)
        except InvalidGrantError:
            self._count_refresh("unknown")
            raise

    async def _exchange(
        self,
        presented: PresentedToken,
        caller: Caller,
        client_id: str,
        wanted: frozenset[str] | None,
        now: int,
    ) -> TokenPair:
        """Exchange the token with the family's row locked."""
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
        """End every session and personal key of a user except this session.

        The session gets new tokens with at most the scope of its login: a narrow
        session stays narrow. Publishes to the feed, so these are the transaction's last
        statements.

        Args:
            db: the write transaction in which the caller raised the user's generation.
            principal: the user, after a right password.
            keep_keys: keep the personal keys; the tokens made with them end.

        Returns:
            This session, and the feed position that ends all other tokens.

        Raises:
            UnauthenticatedError: when this session has ended meanwhile.
        """
        now = seconds(self._clock)
        user_id, sid = principal.subject, principal.sid
        which = SessionsToEnd(user_ids=[user_id], keep_sid=sid, keep_keys=keep_keys)
        await self._ending.end_sessions(db, which, reason="start_over", now=now)
        subject = await load_subject(db, user_id)
        login = await touch(db, sid, now)
        scope = await self._families.find_scope(db, sid)
        if subject is None or login is None or scope is None:
            raise UnauthenticatedError(detail="the session has ended meanwhile")
        granted = format_scope(find_granted(scope, subject))
        refresh_token = await self._families.start(
            db,
            sid=sid,
            client_id=principal.client_id,
            scope=granted,
            now=now,
            expires_at=login.expires_at,
        )
        grant = build_grant(subject, sid, login, granted)
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
        login = await touch(db, exchanged.sid, now, limit)
        if login is not None and limit is not None:
            self._require_within(limit, login, now)
        subject = await load_subject(db, login.user_id) if login else None
        if login is None or subject is None or subject.is_disabled:
            raise self._refuse(Refused(Revoked()))
        granted = find_granted(exchanged.scope, subject)
        if wanted is not None:
            granted = require_subset(wanted, granted)
        grant = build_grant(subject, exchanged.sid, login, format_scope(granted))
        return OpenSession(grant, exchanged.refresh_token, now)

    def _require_within(self, limit: RateLimit, login: LoginOf, now: int) -> None:
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
        # Either of the two bearers may be the thief.
        act = Act("refresh.reused", actor="unknown", subject=user_id, facts=facts)
        await self._audit(db, act, caller)
        await self._ending.publish_sids(db, [sid], now)

    def _refuse(self, refused: Refused) -> InvalidGrantError:
        outcomes = {Reuse: "reused", Expired: "expired", Revoked: "revoked"}
        outcome = outcomes[type(refused.decision)]
        self._count_refresh(outcome)
        error = ReuseDetectedError if outcome == "reused" else InvalidGrantError
        return error(detail=f"the refresh token is {outcome}")
