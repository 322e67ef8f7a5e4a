"""Whether a token is still valid: one function for each query of the database.

The database has a revocation before the feed has delivered it to the verifiers.
"""

from __future__ import annotations

from typing import Final

from sqlalchemy import Select, and_, or_, select, text
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncSession

from issuer.errors import UnauthenticatedError
from issuer.http.authorization.principals import Principal
from issuer.storage.lifetimes import lies_ahead
from issuer.storage.tables.clients import Client
from issuer.storage.tables.feed import FeedEntryRow
from issuer.storage.tables.personal_keys import PersonalKey
from issuer.storage.tables.sessions import Session
from issuer.storage.tables.users import User
from shared.claims import MAX_LEEWAY
from shared.feed import EntryKind

# Every revocation of a token runs this first, so it is one prepared statement. An entry
# that is pruned before the token expires does not refuse it long enough (R50a).
_IN_FEED: Final = text("""
    SELECT kind FROM feed_entries
    WHERE prune_at >= :ends_at AND (
        (kind = 'jti' AND key = :jti)
        OR (kind = 'sid' AND key = :sid)
        OR (kind = 'kid' AND key = :kid)
        OR (kind = :subject_kind AND key = :subject
            AND minimum_generation > :generation)
    )
    LIMIT 1
    """)


async def require_living_subject(
    db: AsyncSession, principal: Principal, now: int
) -> None:
    """Return when session, key or client of the token and its subject have not ended.

    Raises:
        UnauthenticatedError: when one of them has ended.
    """
    query = _select_generation(principal, now)
    generation = (await db.execute(query)).scalar_one_or_none()
    if generation is None:
        raise UnauthenticatedError(detail="the session or its subject has ended")
    if principal.generation < generation:
        raise UnauthenticatedError(detail="an earlier generation")


def _select_generation(principal: Principal, now: int) -> Select[int]:
    """Return the query for the subject's generation; no row if it has ended."""
    if principal.is_client:
        return select(Client.generation).where(
            Client.id == principal.subject, Client.disabled_at.is_(None)
        )
    if principal.is_personal_key:
        return (
            select(User.generation)
            .join(PersonalKey, PersonalKey.user_id == User.id)
            .where(
                User.id == principal.subject,
                User.disabled_at.is_(None),
                PersonalKey.id == principal.sid,
                PersonalKey.revoked_at.is_(None),
                PersonalKey.expires_at > now,
                ~lies_ahead(PersonalKey.created_at, now),
            )
        )
    return (
        select(User.generation)
        .join(Session, Session.user_id == User.id)
        .where(
            User.id == principal.subject,
            User.disabled_at.is_(None),
            Session.sid == principal.sid,
            Session.ended_at.is_(None),
            Session.expires_at > now,
        )
    )


async def require_unrevoked(db: AsyncSession, principal: Principal, kid: str) -> None:
    """Return when the feed has no entry for the token, its session or its key.

    Sessions and generations have rows; other revocations are only in the feed. An entry
    outlives every token that it concerns, so a pruned entry is not needed.

    Raises:
        UnauthenticatedError: when it has one.
    """
    named = [
        (EntryKind.JTI, principal.jti),
        (EntryKind.SID, principal.sid),
        (EntryKind.KID, kid),
    ]
    found = await db.execute(
        select(FeedEntryRow.kind)
        .where(
            or_(
                *(
                    and_(FeedEntryRow.kind == kind.value, FeedEntryRow.key == key)
                    for kind, key in named
                )
            )
        )
        .limit(1)
    )
    kind = found.scalar_one_or_none()
    if kind is not None:
        raise UnauthenticatedError(detail=f"its {kind} was revoked")


async def is_in_feed(
    db: AsyncSession | AsyncConnection, principal: Principal, kid: str
) -> bool:
    """Return whether the feed makes verifiers refuse the token until it expires."""
    kind = EntryKind.CLIENT if principal.is_client else EntryKind.USER
    asked = {
        "ends_at": principal.expires_at + MAX_LEEWAY,
        "jti": principal.jti,
        "sid": principal.sid,
        "kid": kid,
        "subject_kind": kind.value,
        "subject": principal.subject,
        "generation": principal.generation,
    }
    return (await db.execute(_IN_FEED, asked)).scalar_one_or_none() is not None
