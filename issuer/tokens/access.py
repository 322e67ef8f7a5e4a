"""Access tokens (RFC 9068): minted for a grant, and checked against the database.

A check reads the token with PyJWT, then the database, which is ahead of the feed.
"""

from __future__ import annotations

import uuid
from dataclasses import replace
from typing import NamedTuple

from issuer.clock import seconds
from issuer.exports.status_list import StatusIndices, StatusOwner
from issuer.foundation import Foundation
from issuer.http.authorization.principals import Principal
from issuer.keys.store import KeyStore
from issuer.tokens.living import (
    is_in_feed,
    require_living_subject,
    require_unrevoked,
)
from issuer.tokens.minting import AccessGrant, MintedToken, mint_access
from issuer.tokens.reading import read_access, read_unverified_kid
from shared.claims import CLOCK_ALLOWANCE, LONGEST_ACCESS_TTL, MAX_LEEWAY


class RecognisedToken(NamedTuple):
    """A token that we made and that has not expired at every verifier.

    Attributes:
        principal: the facts in it.
        is_revoked: whether an entry of the feed refuses it for the rest of its life.
    """

    principal: Principal
    is_revoked: bool


class AccessTokens:
    """Mints access tokens and checks whether one is still valid.

    Args:
        base: gives the database, the clock and the settings.
        keys: sign and verify.
        status_indices: gives each token its bit; None without status lists.
    """

    def __init__(
        self,
        base: Foundation,
        keys: KeyStore,
        *,
        status_indices: StatusIndices | None = None,
    ) -> None:
        self._database = base.database
        self._keys = keys
        self.issuer_url = base.settings.url
        self.audience = base.settings.audience
        self._access_ttl = base.settings.access_ttl
        self._clock = base.clock
        self._status_indices = status_indices

    async def mint(self, grant: AccessGrant, now: int) -> MintedToken:
        """Return a new access token.

        Args:
            grant: the facts about its subject.
            now: Unix seconds at which the transaction that allows it began. This is the
                token's `iat`: with a later one, after a pause of this process, it could
                outlive a revocation that was committed meanwhile.

        Raises:
            InvalidScopeError: when the token or its identity headers would be longer
                than verifiers, gateways and applications take.
            UnavailableError: when there is no signing key, or the database is away.
        """
        jti = str(uuid.uuid4())
        status = None
        if self._status_indices is not None:
            status = await self._status_indices.find(_owner_of(grant))
            jti = status.mark(jti)
            if grant.not_after is None:
                # No row has the bit of a client's grant: it is part of the sid.
                grant = replace(grant, sid=status.mark(grant.sid))
        return mint_access(
            grant,
            await self._keys.signing_key(),
            issuer_url=self.issuer_url,
            audience=grant.audience or self.audience,
            now=now,
            access_ttl=self._access_ttl,
            jti=jti,
            status=status,
        )

    async def verify(self, token: str, *, is_for_anyone: bool = False) -> Principal:
        """Return the principal of a token that is still valid.

        Args:
            token: as presented.
            is_for_anyone: accept any audience. Only for answers about the token, never
                to admit its bearer.

        Raises:
            UnauthenticatedError: when we did not make it, it has expired, or it was
                revoked in any way.
            UnavailableError: when the database is away.
        """
        now = seconds(self._clock)
        principal, kid = read_access(
            token,
            await self._keys.verification_keys(read_unverified_kid(token)),
            issuer_url=self.issuer_url,
            audience=None if is_for_anyone else self.audience,
            now=now,
        )
        async with self._database.read() as db:
            await require_living_subject(db, principal, now)
            await require_unrevoked(db, principal, kid)
        return principal

    async def read_recognised(self, token: str) -> RecognisedToken:
        """Return a token that some verifier may accept, and whether the feed refuses
        it.

        Verifiers know expiry and the feed, but none of our rows. They may still accept
        a token that has just expired, or whose session is gone without a feed entry.

        Raises:
            UnauthenticatedError: when we did not make it, or it has expired for every
                verifier.
            UnavailableError: when the database is away.
        """
        principal, kid = read_access(
            token,
            await self._keys.verification_keys(read_unverified_kid(token)),
            issuer_url=self.issuer_url,
            audience=None,
            now=seconds(self._clock) - MAX_LEEWAY - CLOCK_ALLOWANCE,
            may_be_future=True,
        )
        if self._database.is_sqlite:
            # On SQLite a single statement would take the one lock of all writers.
            async with self._database.read() as db:
                is_revoked = await is_in_feed(db, principal, kid)
        else:
            async with self._database.statement() as connection:
                is_revoked = await is_in_feed(connection, principal, kid)
        return RecognisedToken(principal, is_revoked)


def last_expiry(now: int) -> int:
    """Return the Unix seconds at which every token minted until `now` has expired.

    It includes the differences of clocks, the verifiers' leeway, and a longer lifetime
    before the last start.
    """
    return now + LONGEST_ACCESS_TTL + MAX_LEEWAY


def _owner_of(grant: AccessGrant) -> StatusOwner:
    owner = grant.subject if grant.not_after is None else grant.sid
    return StatusOwner(owner, grant.subject, grant.generation, grant.not_after)
