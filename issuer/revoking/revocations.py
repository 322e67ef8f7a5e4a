"""Revokes a single access token or a signing key: neither has a session row."""

from __future__ import annotations

from typing import Final

from issuer.acts import Act, Caller
from issuer.clock import seconds
from issuer.feed.feed import Position, Revocation, RevocationFeed
from issuer.foundation import Foundation
from issuer.keys.rotation import KeyRotation
from issuer.revoking.quick_revocation import QuickRevocation
from issuer.sessions.ended import find_published
from issuer.sessions.logout import require_identifier
from issuer.tokens.access import last_expiry
from shared.claims import MAX_LEEWAY, MAX_NUMERIC_DATE
from shared.feed import EntryKind

#: With a stolen key an attacker also chooses the expiry of tokens, so the entry stays:
#: the end of the year 9999, in Unix seconds.
_NEVER: Final = MAX_NUMERIC_DATE


class Revocations:
    """Revokes single tokens and single keys.

    Every method returns the feed position of the entry. A verifier that has applied it
    refuses the token, or every token of the key.

    Args:
        base: gives the database, the clock and the audit.
        feed: publishes the entries.
        rotation: takes keys out of the JWKS.
        quick: revokes a token in one statement, where that is possible.
    """

    def __init__(
        self,
        base: Foundation,
        feed: RevocationFeed,
        rotation: KeyRotation,
        *,
        quick: QuickRevocation,
    ) -> None:
        self._database = base.database
        self._feed = feed
        self._rotation = rotation
        self._clock = base.clock
        self._audit = base.audit
        self._quick = quick

    async def revoke_token(
        self, jti: str, caller: Caller, *, actor: str, expires_at: int | None = None
    ) -> Position:
        """Revoke one access token.

        Args:
            jti: the token's id; it need not be one of ours.
            caller: origin of the request.
            actor: subject of the actor.
            expires_at: the token's `exp`, if it is known.

        Raises:
            InvalidRequestError: when the text cannot be a token's id.
            UnavailableError: when the database is away.
        """
        require_identifier("jti", jti)
        if expires_at is None:
            if await self._is_published(EntryKind.JTI, jti):
                # The entry outlives every token that was minted before it.
                return await self.newest_position()
            prune_at = last_expiry(seconds(self._clock))
        else:
            prune_at = expires_at + MAX_LEEWAY
        act = Act("token.revoked", actor=actor, subject=jti)
        revocation = Revocation(EntryKind.JTI, jti, prune_at)
        position = await self._quick.revoke(revocation, act, caller)
        if position is not None:
            return position
        async with self._database.write() as db:
            await self._audit(db, act, caller)
            return await self._feed.append(db, revocation)

    async def _is_published(self, kind: EntryKind, key: str) -> bool:
        async with self._database.read() as db:
            return bool(await find_published(db, kind, [key]))

    async def newest_position(self) -> Position:
        """Return a position at or past every revocation until now.

        Raises:
            UnavailableError: when the database is away.
        """
        return await self._feed.head_position()

    async def revoke_key(self, kid: str, caller: Caller, *, actor: str) -> Position:
        """Withdraw a signing key, and every token it ever signed.

        The published next key replaces an active one at once; else a new one does.

        Raises:
            NotFoundError: when no key has ever had this id.
            UnavailableError: when the database is away.
        """
        if await self._is_published(EntryKind.KID, kid):
            # It was withdrawn permanently, so a repeated call writes nothing.
            return await self.newest_position()
        successor = await self._rotation.make_successor(kid)
        async with self._database.write() as db:
            await self._rotation.withdraw(db, kid, successor, actor=actor)
            act = Act("key.revoked", actor=actor, subject=kid)
            await self._audit(db, act, caller)
            position = await self._feed.append(
                db, Revocation(EntryKind.KID, kid, _NEVER)
            )
        self._rotation.forget()
        return position
