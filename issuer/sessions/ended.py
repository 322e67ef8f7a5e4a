"""Finds sids and users without anything left to revoke, in the rows and in the feed.

Revoking calls look here first, so that a repeated call writes nothing.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping

from sqlalchemy import func, select
from sqlalchemy.ext.asyncio import AsyncSession

from issuer.storage.tables.feed import FeedEntryRow
from issuer.storage.tables.personal_keys import PersonalKey
from issuer.storage.tables.sessions import Session
from shared.claims import CLOCK_ALLOWANCE, MAX_LEEWAY
from shared.feed import EntryKind


async def find_done_sids(db: AsyncSession, sids: Collection[str]) -> set[str]:
    """Return the sids with nothing left to revoke.

    The sid of a personal key's tokens is the key's id. The key itself must have ended:
    otherwise it can be exchanged again after the entry is pruned (R50).
    """
    ended = await db.scalars(
        select(Session.sid).where(Session.sid.in_(sids), Session.ended_at.is_not(None))
    )
    living_keys = await db.scalars(
        select(PersonalKey.id).where(
            PersonalKey.id.in_(sids), PersonalKey.revoked_at.is_(None)
        )
    )
    published = set(await find_published(db, EntryKind.SID, sids)) - set(living_keys)
    return set(ended) | published


async def find_done_users(
    db: AsyncSession, known: Mapping[str, int], now: int
) -> set[str]:
    """Return the users with nothing left to revoke.

    It is not enough that a user has no living session, because a personal key is
    exchanged without one. The feed must have the entry of the present generation, and
    no session or key may have been alive since.

    Args:
        db: an open transaction.
        known: the users' generations by their ids.
        now: Unix seconds.
    """
    living = await _find_living(db, known, now)
    published = await db.execute(
        select(FeedEntryRow.key, FeedEntryRow.minimum_generation).where(
            FeedEntryRow.kind == EntryKind.USER.value, FeedEntryRow.key.in_(known)
        )
    )
    done = {row.key for row in published if row.minimum_generation >= known[row.key]}
    return done - living


async def _find_living(
    db: AsyncSession, user_ids: Collection[str], now: int
) -> set[str]:
    """Return the users with a session or a key whose tokens may still be accepted."""
    # Verifiers allow leeway, and clocks differ.
    since = now - MAX_LEEWAY - CLOCK_ALLOWANCE
    sessions = select(Session.user_id).where(
        Session.user_id.in_(user_ids),
        Session.ended_at.is_(None),
        Session.expires_at > since,
    )
    keys = select(PersonalKey.user_id).where(
        PersonalKey.user_id.in_(user_ids),
        PersonalKey.revoked_at.is_(None),
        PersonalKey.expires_at > since,
    )
    return set(await db.scalars(sessions.union(keys)))


async def find_published(
    db: AsyncSession, kind: EntryKind, keys: Collection[str]
) -> dict[str, int]:
    """Return the keys that are in the feed, with the time until which they stay there.

    Args:
        db: an open transaction.
        kind: what the keys name.
        keys: the names.

    Returns:
        The latest `prune_at` of each key that is in the feed, Unix seconds.
    """
    if not keys:
        return {}
    rows = await db.execute(
        select(FeedEntryRow.key, func.max(FeedEntryRow.prune_at).label("prune_at"))
        .where(FeedEntryRow.kind == kind.value, FeedEntryRow.key.in_(keys))
        .group_by(FeedEntryRow.key)
    )
    return {row.key: row.prune_at for row in rows}
