"""Ends several sessions of one user at once, each by its own entry in the feed.

Raising the user's generation would end all of them; this is for some.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence

from sqlalchemy import select, update
from sqlalchemy.ext.asyncio import AsyncSession

from issuer.models import RefreshFamily, Session
from issuer.revocation.feed import Position, Revocation, RevocationFeed
from issuer.tokens.access import AccessTokens
from issuer.tokens.families import RefreshFamilies
from shared.feed import EntryKind


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

    async def end(
        self, db: AsyncSession, sids: Collection[str], *, reason: str, now: int
    ) -> Sequence[str]:
        """End these sessions and their families, without publishing it: see `publish`.

        Returns:
            Those that had not ended already.
        """
        if not sids:
            return ()
        concerned = RefreshFamily.sid.in_(sids)
        # In one order, so that two who do this do not wait for each other.
        await db.execute(
            select(RefreshFamily.id)
            .where(concerned)
            .order_by(RefreshFamily.id)
            .with_for_update()
        )
        await self._families.revoke(db, concerned, reason=reason, now=now)
        chosen = Session.sid.in_(sids)
        await db.execute(
            select(Session.sid).where(chosen).order_by(Session.sid).with_for_update()
        )
        ended = await db.scalars(
            update(Session)
            .where(chosen, Session.ended_at.is_(None))
            .values(ended_at=now)
            .returning(Session.sid)
            .execution_options(synchronize_session=False)
        )
        return sorted(ended)

    async def publish(
        self, db: AsyncSession, sids: Sequence[str], now: int
    ) -> Position:
        """Tell the verifiers that these, one or more, ended; the transaction's last act."""
        last = self._access_tokens.last_expiry(now)
        revocations = [Revocation(EntryKind.SID, sid, last) for sid in sids]
        return await self._feed.append(db, *revocations)
