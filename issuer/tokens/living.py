"""Whether a token still counts: the questions to the database, one function each.

The database knows at once what the feed is still carrying to the verifiers.
"""

from __future__ import annotations

from sqlalchemy import and_, or_, select
from sqlalchemy.ext.asyncio import AsyncSession

from issuer.errors import UnauthenticatedError
from issuer.models import Client, FeedEntryRow, PersonalKey, Session, User
from issuer.tokens.principals import Principal
from shared.feed import EntryKind


async def require_living_subject(
    db: AsyncSession, principal: Principal, now: int
) -> None:
    """Return when its session, key or client has not ended, and its subject neither.

    Raises:
        UnauthenticatedError: when one of them has.
    """
    if principal.is_client:
        query = select(Client.generation).where(
            Client.id == principal.subject, Client.disabled_at.is_(None)
        )
    elif principal.is_personal_key:
        query = (
            select(User.generation)
            .join(PersonalKey, PersonalKey.user_id == User.id)
            .where(
                User.id == principal.subject,
                User.disabled_at.is_(None),
                PersonalKey.id == principal.sid,
                PersonalKey.revoked_at.is_(None),
                PersonalKey.expires_at > now,
            )
        )
    else:
        query = (
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
    generation = (await db.execute(query)).scalar_one_or_none()
    if generation is None:
        raise UnauthenticatedError(detail="the session or its subject has ended")
    if principal.generation < generation:
        raise UnauthenticatedError(detail="an earlier generation")


async def require_unrevoked(db: AsyncSession, principal: Principal, kid: str) -> None:
    """Return when the feed holds no entry against the token, its session or its key.

    Rows know sessions and generations; the rest stands in the feed only. An entry
    outlives every token it concerns, so what is pruned can no longer matter.

    Raises:
        UnauthenticatedError: when it holds one.
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


async def require_present_generation(db: AsyncSession, principal: Principal) -> None:
    """Return when the feed does not tell a later generation of the subject.

    Raises:
        UnauthenticatedError: when it does.
    """
    kind = EntryKind.CLIENT if principal.is_client else EntryKind.USER
    entry = await db.scalar(
        select(FeedEntryRow.seq)
        .where(
            FeedEntryRow.kind == kind.value,
            FeedEntryRow.key == principal.subject,
            FeedEntryRow.minimum_generation > principal.generation,
        )
        .limit(1)
    )
    if entry is not None:
        raise UnauthenticatedError(detail="an earlier generation")
