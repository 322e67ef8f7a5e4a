"""A session that goes on: its row, and the grant of its next access token."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final, NamedTuple

from sqlalchemy import insert, update
from sqlalchemy.ext.asyncio import AsyncSession

from issuer.acts import Caller
from issuer.http.authorization.scopes import format_scope
from issuer.sessions.quick_rotation import Rotated
from issuer.storage.rate_limits import RateLimit
from issuer.storage.tables.sessions import Session
from issuer.tokens.minting import AccessGrant
from issuer.tokens.subjects import Subject

#: The `client_id` of people who log in at the issuer itself.
FIRST_PARTY_CLIENT_ID: Final = "gatehouse"


@dataclass(frozen=True, slots=True)
class OpenSession:
    """A session with what its next answer needs.

    Attributes:
        grant: the facts of its next access token.
        refresh_token: its next refresh token.
        now: Unix seconds at which the transaction began; the token's `iat`.
    """

    grant: AccessGrant
    refresh_token: str
    now: int


class LoginOf(NamedTuple):
    """A session as its login began it; `amr` is space-delimited."""

    user_id: str
    created_at: int
    expires_at: int
    amr: str | None
    refreshes_until: int | None = None


async def insert_session(
    db: AsyncSession, sid: str, login: LoginOf, caller: Caller
) -> None:
    """Insert the row of a session that begins now."""
    await db.execute(
        insert(Session).values(
            sid=sid,
            user_id=login.user_id,
            client_id=FIRST_PARTY_CLIENT_ID,
            device_label=caller.device_label,
            address=caller.address,
            created_at=login.created_at,
            last_used_at=login.created_at,
            expires_at=login.expires_at,
            amr=login.amr,
        )
    )


async def touch(
    db: AsyncSession, sid: str, now: int, limit: RateLimit | None = None
) -> LoginOf | None:
    """Update the row of a living session, which locks it; return None if it has ended.

    With a limit, the refresh is counted in the same statement: the row is written
    anyway.
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
    return None if row is None else LoginOf(*row)


def go_on(rotated: Rotated, now: int) -> OpenSession:
    """Return the session after a quick rotation."""
    subject = rotated.subject
    login = LoginOf(
        subject.user_id, rotated.created_at, rotated.expires_at, rotated.amr
    )
    scope = format_scope(find_granted(rotated.scope, subject))
    grant = build_grant(subject, rotated.sid, login, scope)
    return OpenSession(grant, rotated.refresh_token, now)


def find_granted(scope: str, subject: Subject) -> frozenset[str]:
    """Return the scope of a token.

    It is never more than was granted (RFC 6749, section 6), nor than the roles grant
    now.
    """
    return frozenset(scope.split()) & frozenset(subject.scope.split())


def build_grant(subject: Subject, sid: str, login: LoginOf, scope: str) -> AccessGrant:
    """Return the facts of the session's next access token."""
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
