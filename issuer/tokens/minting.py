"""Minting access tokens (RFC 9068). Touches nothing but the signing key it is given.

`mint_access` is over 40 lines: it documents its eight arguments.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

import orjson
from cryptography.hazmat.primitives.asymmetric.padding import PKCS1v15
from cryptography.hazmat.primitives.hashes import SHA256

from issuer.errors import InvalidScopeError
from issuer.exports.status_list import StatusReference
from issuer.http.authorization.login_methods import find_acr
from issuer.keys.store import ActiveSigningKey
from shared.claims import MAX_TOKEN_BYTES
from shared.identity_headers import MAX_IDENTITY_BYTES, measure_words
from shared.jose import base64url
from shared.token_form import encode_header, leading_claims

# RS256 (RFC 7518, section 3.3).
_PADDING: Final = PKCS1v15()
_HASH: Final = SHA256()
_TOO_LONG: Final = (
    "The %s would be longer than %d bytes: "
    "ask for fewer scopes, or have roles taken from this account."
)


@dataclass(frozen=True, slots=True)
class AccessGrant:
    """The facts that an access token states about its subject.

    Attributes:
        subject: the user's or the client's id.
        client_id: the client that asked for the token.
        sid: the session; for a client's own token the grant's id.
        generation: the subject's present generation.
        scope: space-delimited.
        roles: names of roles.
        auth_time: Unix seconds at which the subject authenticated.
        not_after: Unix seconds at which its session ends; the token expires then at the
            latest.
        username: None for a client.
        audience: its `aud`; None: the issuer's own audience.
        amr: the methods of the login (RFC 8176); empty: unknown.
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
    """An access token and its lifetime in seconds."""

    access_token: str
    expires_in: int


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
        grant: the facts about its subject.
        signing_key: signs it.
        issuer_url: its `iss`.
        audience: its `aud`.
        now: Unix seconds.
        access_ttl: its lifetime at most, seconds.
        jti: its id.
        status: the place of its bit, if there are status lists.

    Raises:
        InvalidScopeError: when it would be longer than a verifier reads (R17), or its
            identity headers longer than gateways and applications take (R63).
    """
    _require_identity_fits(grant)
    expires_at = now + access_ttl
    if grant.not_after is not None:
        expires_at = min(expires_at, grant.not_after)
    # In this order: gateways that check tokens by themselves know its bytes.
    claims = {
        **leading_claims(issuer_url, audience),
        "exp": expires_at,
        "iat": now,
        "sub": grant.subject,
        "jti": jti,
        **_describe(grant, status),
    }
    token = _sign(claims, signing_key)
    if len(token) > MAX_TOKEN_BYTES:
        raise InvalidScopeError(_TOO_LONG % ("access token", MAX_TOKEN_BYTES))
    return MintedToken(token, expires_at - now)


def _describe(grant: AccessGrant, status: StatusReference | None) -> dict[str, Any]:
    """Return the claims about the subject and its session."""
    claims: dict[str, Any] = {
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
    return claims


def _require_identity_fits(grant: AccessGrant) -> None:
    """Return when the identity headers of the token are within their bound.

    Roles and scopes are measured when they are granted. Those granted before the bound
    existed are caught here.

    Raises:
        InvalidScopeError: when the headers are longer (R63).
    """
    others = (grant.subject, grant.username or "", grant.client_id, grant.sid)
    size = measure_words((*others, *grant.roles, *grant.scope.split()))
    if size > MAX_IDENTITY_BYTES:
        raise InvalidScopeError(_TOO_LONG % ("identity headers", MAX_IDENTITY_BYTES))


def _sign(claims: Mapping[str, Any], signing_key: ActiveSigningKey) -> str:
    """Return the compact form (RFC 7515, section 7.1).

    PyJWT spends a tenth of the signature's time on it.
    """
    payload = base64url.encode(orjson.dumps(claims))
    signed = f"{encode_header(signing_key.kid)}.{payload}"
    signature = signing_key.private_key.sign(signed.encode(), _PADDING, _HASH)
    return f"{signed}.{base64url.encode(signature)}"
