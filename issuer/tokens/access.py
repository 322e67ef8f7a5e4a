"""Access tokens: minting them, and reading our own back (DESIGN.md, section 2).

The verifier's reading of a token is code of its own and asks no database. The issuer
reads its tokens for its own endpoints only, with PyJWT, and then asks the database,
which knows at once what the feed is still carrying to the verifiers.
"""

from __future__ import annotations

import uuid
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

import jwt
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPublicKey
from sqlalchemy import and_, or_, select
from sqlalchemy.ext.asyncio import AsyncSession

from issuer.clock import Clock, seconds
from issuer.db import Database
from issuer.errors import IssuerError, UnauthenticatedError
from issuer.keys.store import ActiveSigningKey, KeyStore
from issuer.models import Client, FeedEntryRow, Session, User
from issuer.settings import LONGEST_ACCESS_TTL
from shared.claims import (
    ACCEPTED_TYPS,
    ACCESS_TOKEN_TYP,
    ALGORITHM,
    MAX_LEEWAY,
    MAX_TOKEN_BYTES,
    REQUIRED_CLAIMS,
)
from shared.feed import EntryKind

#: Beyond RFC 9068's and the verifier's list: what we put into every token of ours.
_OUR_CLAIMS: Final = (*REQUIRED_CLAIMS, "scope", "roles", "auth_time")


@dataclass(frozen=True, slots=True)
class AccessGrant:
    """What an access token says of its bearer.

    Attributes:
        subject: the user's or the client's id.
        client_id: who asked for the token.
        sid: the session; for a client's own token the grant's id.
        generation: the subject's present generation.
        scope: space-delimited.
        roles: names of roles.
        auth_time: Unix seconds at which the subject authenticated.
        not_after: Unix seconds at which its session ends; the token ends then too.
        username: people's only.
    """

    subject: str
    client_id: str
    sid: str
    generation: int
    scope: str
    roles: tuple[str, ...]
    auth_time: int
    not_after: int | None = None
    username: str | None = None


@dataclass(frozen=True, slots=True)
class MintedToken:
    """An access token and the seconds it lives."""

    access_token: str
    expires_in: int


@dataclass(frozen=True, slots=True)
class Principal:
    """Whom a living access token of ours speaks about; only `AccessTokens` makes one.

    Attributes:
        subject: the user's or the client's id.
        username: None for a client.
        client_id: who asked for the token.
        scopes: what the token grants.
        roles: names of roles.
        sid: the session or the grant.
        jti: the token's own id.
        generation: the subject's, at minting.
        auth_time: Unix seconds, as are the next two.
        issued_at: when it was minted.
        expires_at: when it ends.
    """

    subject: str
    username: str | None
    client_id: str
    scopes: frozenset[str]
    roles: tuple[str, ...]
    sid: str
    jti: str
    generation: int
    auth_time: int
    issued_at: int
    expires_at: int

    @property
    def is_client(self) -> bool:
        """Whether a client speaks for itself: then it is its own subject."""
        return self.subject == self.client_id


def mint_access(
    grant: AccessGrant,
    signing_key: ActiveSigningKey,
    *,
    issuer_url: str,
    audience: str,
    now: int,
    access_ttl: int,
    jti: str,
) -> MintedToken:
    """Return a signed access token (RFC 9068).

    Raises:
        IssuerError: when it would be longer than a verifier reads (requirement R17).
    """
    expires_at = now + access_ttl
    if grant.not_after is not None:
        expires_at = min(expires_at, grant.not_after)
    claims: dict[str, Any] = {
        "iss": issuer_url,
        "sub": grant.subject,
        "aud": audience,
        "exp": expires_at,
        "iat": now,
        "jti": jti,
        "client_id": grant.client_id,
        "scope": grant.scope,
        "sid": grant.sid,
        "gen": grant.generation,
        "roles": list(grant.roles),
        "auth_time": grant.auth_time,
    }
    if grant.username is not None:
        claims["username"] = grant.username
    token = jwt.encode(
        claims,
        signing_key.private_key,
        algorithm=ALGORITHM,
        headers={"typ": ACCESS_TOKEN_TYP, "kid": signing_key.kid},
    )
    if len(token) > MAX_TOKEN_BYTES:
        raise IssuerError(detail=f"a token over {MAX_TOKEN_BYTES} bytes: fewer roles")
    return MintedToken(token, expires_at - now)


def read_access(
    token: str,
    verification_keys: Mapping[str, RSAPublicKey],
    *,
    issuer_url: str,
    audience: str,
    now: int,
) -> tuple[Principal, str]:
    """Return what a token of ours says, and its kid. Whether it still counts is not asked.

    Raises:
        UnauthenticatedError: when we did not make it, or it has expired.
    """
    if len(token) > MAX_TOKEN_BYTES or not token.isascii():
        raise UnauthenticatedError(detail="not a token")
    try:
        kid = jwt.get_unverified_header(token).get("kid")
        if not isinstance(kid, str) or kid not in verification_keys:
            raise UnauthenticatedError(detail="the key is not one of ours")
        decoded = jwt.decode_complete(
            token,
            verification_keys[kid],
            algorithms=[ALGORITHM],
            audience=audience,
            issuer=issuer_url,
            # PyJWT has a clock of its own; the time is compared below, with ours.
            options={
                "require": list(_OUR_CLAIMS),
                "verify_exp": False,
                "verify_iat": False,
                "verify_nbf": False,
            },
        )
    except (jwt.PyJWTError, RecursionError) as error:
        raise UnauthenticatedError(detail=type(error).__name__) from None
    claims = decoded["payload"]
    if decoded["header"].get("typ") not in ACCEPTED_TYPS:
        raise UnauthenticatedError(detail="not an access token")
    if claims["exp"] <= now:
        raise UnauthenticatedError(detail="expired")
    return _build_principal(claims), kid


class AccessTokens:
    """Mints access tokens and tells whether one still counts.

    Args:
        database: asked whether a token still counts.
        keys: sign and verify.
        issuer_url: the `iss` of every token.
        audience: the `aud` of every token.
        access_ttl: lifetime, seconds.
        clock: gives the time in milliseconds.
    """

    def __init__(
        self,
        database: Database,
        keys: KeyStore,
        *,
        issuer_url: str,
        audience: str,
        access_ttl: int,
        clock: Clock,
    ) -> None:
        self._database = database
        self._keys = keys
        self.issuer_url = issuer_url
        self.audience = audience
        self._access_ttl = access_ttl
        self._clock = clock

    async def mint(self, grant: AccessGrant) -> MintedToken:
        """Return a new access token.

        Raises:
            UnavailableError: when there is no signing key, or the database is away.
        """
        return mint_access(
            grant,
            await self._keys.signing_key(),
            issuer_url=self.issuer_url,
            audience=self.audience,
            now=seconds(self._clock),
            access_ttl=self._access_ttl,
            jti=str(uuid.uuid4()),
        )

    async def verify(self, token: str) -> Principal:
        """Return whom the token speaks about.

        Raises:
            UnauthenticatedError: when we did not make it, it has expired, or it was
                revoked by any of the ways there are.
            UnavailableError: when the database is away.
        """
        now = seconds(self._clock)
        principal, kid = read_access(
            token,
            await self._keys.verification_keys(),
            issuer_url=self.issuer_url,
            audience=self.audience,
            now=now,
        )
        async with self._database.read() as db:
            await _require_living_subject(db, principal, now)
            await _require_unrevoked(db, principal, kid)
        return principal

    def last_expiry(self, now: int) -> int:
        """Return the Unix seconds by which every token minted until `now` is dead.

        Clocks that differ and the verifiers' leeway are allowed for, and that the
        lifetime was longer before the last start.
        """
        return now + LONGEST_ACCESS_TTL + MAX_LEEWAY


async def _require_living_subject(
    db: AsyncSession, principal: Principal, now: int
) -> None:
    if principal.is_client:
        query = select(Client.generation).where(
            Client.id == principal.subject, Client.disabled_at.is_(None)
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


async def _require_unrevoked(db: AsyncSession, principal: Principal, kid: str) -> None:
    """The rows above know sessions and generations; the rest stands in the feed only.

    An entry outlives every token it concerns, so what is pruned can no longer matter.
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


def _build_principal(claims: Mapping[str, Any]) -> Principal:
    return Principal(
        subject=claims["sub"],
        username=claims.get("username"),
        client_id=claims["client_id"],
        scopes=frozenset(claims["scope"].split()),
        roles=tuple(claims["roles"]),
        sid=claims["sid"],
        jti=claims["jti"],
        generation=claims["gen"],
        auth_time=claims["auth_time"],
        issued_at=claims["iat"],
        expires_at=claims["exp"],
    )
