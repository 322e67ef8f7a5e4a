"""Ends sessions and personal keys: the one place where those of a user end together.

A key is what a session leaves behind for scripts. Whatever ends all sessions of a user
(a new password, a reset, a lock, a logout everywhere, a bulk run) ends the keys with
them, unless it says otherwise: a way that forgot them would leave a thief's key alive.

The feed's entry is published last: one `sid` for each of some, a higher generation of
the user for all.
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
from issuer.tokens.access import AccessTokens
from shared.feed import EntryKind


@dataclass(frozen=True, slots=True)
class SessionsToEnd:
    """What is to end.

    Attributes:
        sids: sessions, and personal keys, whose id is the `sid` of their tokens.
        user_ids: users whose sessions and keys all end. The caller holds their rows,
            so no login and no new key can slip in beside it.
        keep_sid: a session that goes on; its refresh tokens end all the same.
        keep_keys: whether the users' keys go on. One that stands in `sids` never does.
    """

    sids: Collection[str] = ()
    user_ids: Collection[str] = ()
    keep_sid: str = ""
    keep_keys: bool = False


@dataclass(frozen=True, slots=True)
class Ended:
    """What had not ended before; each with its user, by sid and by the key's id."""

    sessions: dict[str, str]
    keys: dict[str, str]


class SessionEnding:
    """Ends sessions in the caller's write transaction. Lock order: see `families.py`.

    Args:
        families: their refresh tokens.
        access_tokens: know how long a token can live.
        feed: carries what ended to the verifiers.
    """

    def __init__(
        self,
        families: RefreshFamilies,
        access_tokens: AccessTokens,
        feed: RevocationFeed,
    ) -> None:
        self._families = families
        self._access_tokens = access_tokens
        self._feed = feed

    async def end_sessions(
        self, db: AsyncSession, which: SessionsToEnd, *, reason: str, now: int
    ) -> Ended:
        """End these sessions, their refresh families, and these personal keys.

        It publishes nothing: see `publish_sids` and `publish_generation`.

        Args:
            db: the caller's write transaction.
            which: what is to end.
            reason: a word for the record.
            now: Unix seconds.
        """
        if not which.sids and not which.user_ids:
            return Ended({}, {})
        chosen = _any_of((Session.sid, which.sids), (Session.user_id, which.user_ids))
        # One session has one living family: no order is needed.
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
        # The id of a session is no key's.
        others = [sid for sid in which.sids if sid not in sessions]
        owners = () if which.keep_keys else which.user_ids
        if not others and not owners:
            return Ended(sessions, {})
        keys = _any_of((PersonalKey.id, others), (PersonalKey.user_id, owners))
        return Ended(sessions, await end_keys(db, keys, now))

    async def publish_sids(
        self, db: AsyncSession, sids: Sequence[str], now: int
    ) -> Position:
        """Tell the verifiers that these, one or more, ended; the transaction's last
        act.
        """
        last = self._access_tokens.last_expiry(now)
        revocations = [Revocation(EntryKind.SID, sid, last) for sid in sids]
        return await self._feed.append(db, *revocations)

    async def publish_generation(
        self, db: AsyncSession, user_id: str, generation: int, now: int
    ) -> Position:
        """Tell the verifiers a user's new generation; the transaction's last act."""
        last = self._access_tokens.last_expiry(now)
        return await self._feed.append(
            db, Revocation(EntryKind.USER, user_id, last, generation)
        )


async def _lock_families(db: AsyncSession, chosen: ColumnElement[bool]) -> None:
    # In one order, so that two who do this do not wait for each other.
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
