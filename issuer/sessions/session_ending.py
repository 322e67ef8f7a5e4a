"""Ends sessions and personal keys; only here do those of a user end together.

A session can make a personal key for scripts. Every act that ends all sessions of a
user (a new password, a reset, a disabled account, a logout everywhere, a bulk run) also
ends the keys, unless the caller asks to keep them. Otherwise a thief's key would stay
alive.

The feed's entry is published last: one `sid` for each of several sessions, or a higher
generation of the user for all of them.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass

from sqlalchemy import ColumnElement, false, or_, select, update
from sqlalchemy.ext.asyncio import AsyncSession
from sqlalchemy.orm import InstrumentedAttribute

from issuer.feed.feed import Position, Revocation, RevocationFeed
from issuer.sessions.families import RefreshFamilies
from issuer.sessions.key_ending import end_keys
from issuer.storage.tables.personal_keys import PersonalKey
from issuer.storage.tables.sessions import RefreshFamily, Session
from issuer.tokens.access import last_expiry
from shared.feed import EntryKind


@dataclass(frozen=True, slots=True)
class SessionsToEnd:
    """The sessions and keys to end.

    Attributes:
        sids: of sessions; ids of personal keys, which are the `sid` of their tokens.
        user_ids: users whose sessions and keys all end. The caller has locked
            their rows, so no login and no new key can come in between.
        keep_sid: a session that continues; its refresh tokens still end.
        keep_keys: whether the users' keys continue. A key in `sids` always ends.
    """

    sids: Collection[str] = ()
    user_ids: Collection[str] = ()
    keep_sid: str = ""
    keep_keys: bool = False


@dataclass(frozen=True, slots=True)
class Ended:
    """The sessions and keys that ended now: their users, by sid and by the key's id."""

    sessions: dict[str, str]
    keys: dict[str, str]


class SessionEnding:
    """Ends sessions in the caller's write transaction. Lock order: see `families.py`.

    Args:
        families: revokes the refresh tokens.
        feed: publishes the entries.
    """

    def __init__(self, families: RefreshFamilies, feed: RevocationFeed) -> None:
        self._families = families
        self._feed = feed

    async def end_sessions(
        self, db: AsyncSession, which: SessionsToEnd, *, reason: str, now: int
    ) -> Ended:
        """End these sessions, their refresh families, and these personal keys.

        It publishes nothing: see `publish_sids` and `publish_generation`.

        Args:
            db: the caller's write transaction.
            which: the sessions and keys.
            reason: a word for the row of a family.
            now: Unix seconds.
        """
        if not which.sids and not which.user_ids:
            return Ended({}, {})
        chosen = _any_of((Session.sid, which.sids), (Session.user_id, which.user_ids))
        # One session has one living family, so no order is needed.
        if which.user_ids or len(which.sids) > 1:
            await _lock_families(db, chosen)
        concerned = RefreshFamily.sid.in_(select(Session.sid).where(chosen))
        await self._families.revoke(db, concerned, reason=reason, now=now)
        if which.user_ids or len(which.sids) > 1:
            await _lock_sessions(db, chosen)
        ended = await db.execute(
            update(Session)
            .where(chosen, Session.ended_at.is_(None), Session.sid != which.keep_sid)
            .values(ended_at=now)
            .returning(Session.sid, Session.user_id)
            .execution_options(synchronize_session=False)
        )
        sessions = {row.sid: row.user_id for row in ended}
        # No key has the id of a session.
        others = [sid for sid in which.sids if sid not in sessions]
        owners = () if which.keep_keys else which.user_ids
        if not others and not owners:
            return Ended(sessions, {})
        keys = _any_of((PersonalKey.id, others), (PersonalKey.user_id, owners))
        return Ended(sessions, await end_keys(db, keys, now))

    async def publish_sids(
        self, db: AsyncSession, sids: Sequence[str], now: int
    ) -> Position:
        """Publish the end of one or more sids, as the transaction's last act."""
        last = last_expiry(now)
        revocations = [Revocation(EntryKind.SID, sid, last) for sid in sids]
        return await self._feed.append(db, *revocations)

    async def publish_generation(
        self, db: AsyncSession, user_id: str, generation: int, now: int
    ) -> Position:
        """Publish a user's new generation, as the transaction's last act."""
        last = last_expiry(now)
        return await self._feed.append(
            db, Revocation(EntryKind.USER, user_id, last, generation)
        )


async def _lock_families(db: AsyncSession, chosen: ColumnElement[bool]) -> None:
    # Always in this order, so that two transactions do not deadlock.
    await db.execute(
        select(RefreshFamily.id)
        .where(RefreshFamily.sid.in_(select(Session.sid).where(chosen)))
        .order_by(RefreshFamily.id)
        .with_for_update()
    )


async def _lock_sessions(db: AsyncSession, chosen: ColumnElement[bool]) -> None:
    await db.execute(
        select(Session.sid).where(chosen).order_by(Session.sid).with_for_update()
    )


def _any_of(
    *named: tuple[InstrumentedAttribute[str], Collection[str]],
) -> ColumnElement[bool]:
    """Return the condition that one of the columns is one of its values.

    What names nothing is left out, so that the planner sees one index, not two.
    """
    found = [column.in_(values) for column, values in named if values]
    return or_(false(), *found)
