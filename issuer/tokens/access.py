"""Access tokens: minting them, and reading our own back.

The claims are in docs/design.md, "The access token".

The issuer reads its own by PyJWT, then asks the database, which is ahead of the feed.
"""

from __future__ import annotations

import uuid
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, Final, NamedTuple

import jwt
import orjson
from cryptography.hazmat.primitives.asymmetric.padding import PKCS1v15
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPublicKey
from cryptography.hazmat.primitives.hashes import SHA256

from issuer.clock import Clock, seconds
from issuer.errors import InvalidScopeError, UnauthenticatedError
from issuer.exports.status_list import StatusIndices, StatusOwner, StatusReference
from issuer.http.authorization.login_methods import find_acr
from issuer.http.authorization.principals import Principal as Principal
from issuer.keys.store import ActiveSigningKey, KeyStore
from issuer.storage.db import Database
from issuer.storage.lifetimes import is_future
from issuer.tokens.living import (
    is_in_feed,
    require_living_subject,
    require_unrevoked,
)
from shared import base64url
from shared.claims import (
    ACCEPTED_TYPS,
    ACCESS_TOKEN_TYP,
    ALGORITHM,
    CLOCK_ALLOWANCE,
    LONGEST_ACCESS_TTL,
    MAX_LEEWAY,
    MAX_TOKEN_BYTES,
    REQUIRED_CLAIMS,
)
from shared.identity_headers import MAX_IDENTITY_BYTES, measure_words

# RS256 (RFC 7518, section 3.3).
_PADDING: Final = PKCS1v15()
_HASH: Final = SHA256()
_TOO_LONG: Final = (
    "The %s would be longer than %d bytes: "
    "ask for fewer scopes, or have roles taken from this account."
)
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
        audience: for whom it is meant; None: the issuer's own audience.
        amr: the methods of the login (RFC 8176); empty: not said.
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
    audience: str | None = None
    amr: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class MintedToken:
    """An access token and the seconds it lives."""

    access_token: str
    expires_in: int


class RecognisedToken(NamedTuple):
    """A token that we made and that has not expired at every verifier.

    Attributes:
        principal: what it says.
        is_revoked: an entry of the feed refuses it for as long as it can live.
    """

    principal: Principal
    is_revoked: bool


def mint_access(
    grant: AccessGrant,
    signing_key: ActiveSigningKey,
    *,
    issuer_url: str,
    audience: str,
    now: int,
    access_ttl: int,
    jti: str,
    status: StatusReference | None = None,
) -> MintedToken:
    """Return a signed access token (RFC 9068).

    Args:
        grant: what it says of its bearer.
        signing_key: signs it.
        issuer_url: its `iss`.
        audience: its `aud`.
        now: Unix seconds.
        access_ttl: its lifetime at most, seconds.
        jti: its id.
        status: where its bit stands, when there are status lists.

    Raises:
        InvalidScopeError: when it would be longer than a verifier reads (R17), or its
            identity headers longer than gateways and applications take (R63).
    """
    _require_identity_fits(grant)
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
    if grant.amr:
        claims |= {"amr": list(grant.amr), "acr": find_acr(grant.amr)}
    if status is not None:
        claims["status"] = status.to_claim()
    token = _sign(claims, signing_key)
    if len(token) > MAX_TOKEN_BYTES:
        raise InvalidScopeError(_TOO_LONG % ("access token", MAX_TOKEN_BYTES))
    return MintedToken(token, expires_at - now)


def _require_identity_fits(grant: AccessGrant) -> None:
    """Return when the identity headers of such a token are within their bound.

    Roles and scopes are measured when they are given; this catches what was given
    before there was a bound.

    Raises:
        InvalidScopeError: when they are longer (R63).
    """
    others = (grant.subject, grant.username or "", grant.client_id, grant.sid)
    size = measure_words((*others, *grant.roles, *grant.scope.split()))
    if size > MAX_IDENTITY_BYTES:
        raise InvalidScopeError(_TOO_LONG % ("identity headers", MAX_IDENTITY_BYTES))


def _sign(claims: Mapping[str, Any], signing_key: ActiveSigningKey) -> str:
    """RFC 7515, section 7.1. PyJWT's way there costs a tenth of the signature itself."""
    header = {"alg": ALGORITHM, "typ": ACCESS_TOKEN_TYP, "kid": signing_key.kid}
    parts = (base64url.encode(orjson.dumps(part)) for part in (header, claims))
    signed = ".".join(parts)
    signature = signing_key.private_key.sign(signed.encode(), _PADDING, _HASH)
    return f"{signed}.{base64url.encode(signature)}"


def read_unverified_kid(token: str) -> str:
    """Return the `kid` that the token's header names; nothing of it is verified.

    Raises:
        UnauthenticatedError: when it is no token of ours by its form.
    """
    if len(token) > MAX_TOKEN_BYTES or not token.isascii():
        raise UnauthenticatedError(detail="not a token")
    try:
        kid = jwt.get_unverified_header(token).get("kid")
    except (jwt.PyJWTError, RecursionError) as error:
        raise UnauthenticatedError(detail=type(error).__name__) from None
    if not isinstance(kid, str):
        raise UnauthenticatedError(detail="the token names no key")
    return kid


def read_access(
    token: str,
    verification_keys: Mapping[str, RSAPublicKey],
    *,
    issuer_url: str,
    audience: str | None,
    now: int,
    may_be_future: bool = False,
) -> tuple[Principal, str]:
    """Return what a token of ours says, and its kid. Whether it still counts is not asked.

    Args:
        token: as presented.
        verification_keys: the published ones, by kid.
        issuer_url: the `iss` it must have.
        audience: the `aud` it must have; None: any, for whoever asks about tokens.
        now: Unix seconds.
        may_be_future: take it also when it was made while the clock was ahead: verifiers
            take it once their clock gets there.

    Raises:
        UnauthenticatedError: when we did not make it, it has expired, or it is dated from
            the future.
    """
    kid = read_unverified_kid(token)
    if kid not in verification_keys:
        raise UnauthenticatedError(detail="the key is not one of ours")
    try:
        decoded = jwt.decode_complete(
            token,
            verification_keys[kid],
            algorithms=[ALGORITHM],
            audience=audience,
            issuer=issuer_url,
            # PyJWT has a clock of its own; the time is compared below, with ours.
            options={
                "require": list(_OUR_CLAIMS),
                "verify_aud": audience is not None,
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
    if not may_be_future and is_future(claims["iat"], now):
        raise UnauthenticatedError(detail="made while the clock was ahead")
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
        status_indices: give each token its bit; None: there are no status lists.
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
        status_indices: StatusIndices | None = None,
    ) -> None:
        self._database = database
        self._keys = keys
        self.issuer_url = issuer_url
        self.audience = audience
        self._access_ttl = access_ttl
        self._clock = clock
        self._status_indices = status_indices

    async def mint(self, grant: AccessGrant, now: int) -> MintedToken:
        """Return a new access token.

        Args:
            grant: what it says of its bearer.
            now: Unix seconds at which the transaction that allows it was begun. The
                token is dated from then: were it dated later, after a pause of this
                process, it could outlive a revocation that was committed meanwhile.

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
                # No row tells which bit a client's grant has: its sid does.
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
        """Return whom the token speaks about.

        Args:
            token: as presented.
            is_for_anyone: take it whatever its audience, to tell somebody about it;
                never to let its bearer in.

        Raises:
            UnauthenticatedError: when we did not make it, it has expired, or it was
                revoked by any of the ways there are.
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
        """Return what a token says that some verifier may take, and whether one still does.

        Verifiers know expiry and feed, no rows of ours: a token that has expired just
        now, or whose session is gone without an entry in the feed, may still be taken.

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
            # There a single statement would take the one lock of all writers.
            async with self._database.read() as db:
                is_revoked = await is_in_feed(db, principal, kid)
        else:
            async with self._database.statement() as connection:
                is_revoked = await is_in_feed(connection, principal, kid)
        return RecognisedToken(principal, is_revoked)

    def last_expiry(self, now: int) -> int:
        """Return the Unix seconds by which every token minted until `now` is dead.

        Clocks that differ and the verifiers' leeway are allowed for, and that the
        lifetime was longer before the last start.
        """
        return now + LONGEST_ACCESS_TTL + MAX_LEEWAY


def _owner_of(grant: AccessGrant) -> StatusOwner:
    owner = grant.subject if grant.not_after is None else grant.sid
    return StatusOwner(owner, grant.subject, grant.generation, grant.not_after)


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
        audience=claims["aud"],
        amr=tuple(claims.get("amr", ())),
    )
