"""Reads the issuer's own access tokens, with PyJWT. It checks no revocation."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

import jwt
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPublicKey

from issuer.errors import UnauthenticatedError
from issuer.http.authorization.principals import Principal
from issuer.storage.lifetimes import is_future
from shared.claims import ACCEPTED_TYPS, ALGORITHM, MAX_TOKEN_BYTES, REQUIRED_CLAIMS

#: Every token of ours has these: more than RFC 9068 and the verifier require.
_OUR_CLAIMS: Final = (*REQUIRED_CLAIMS, "scope", "roles", "auth_time")


def read_unverified_kid(token: str) -> str:
    """Return the `kid` in the token's header; nothing is verified.

    Raises:
        UnauthenticatedError: when the text has not the form of our tokens.
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
    """Return the principal of a token of ours, and its kid.

    Revocation is not checked here.

    Args:
        token: as presented.
        verification_keys: the published ones, by kid.
        issuer_url: the `iss` it must have.
        audience: the `aud` it must have; None accepts any, for questions about tokens.
        now: Unix seconds.
        may_be_future: accept it although it was made while the clock was ahead: a
            verifier accepts it once its clock gets there.

    Raises:
        UnauthenticatedError: when we did not make it, it has expired, or it is dated
            from the future.
    """
    kid = read_unverified_kid(token)
    if kid not in verification_keys:
        raise UnauthenticatedError(detail="the key is not one of ours")
    claims = _read_signed(token, verification_keys[kid], issuer_url, audience)
    if claims["exp"] <= now:
        raise UnauthenticatedError(detail="expired")
    if not may_be_future and is_future(claims["iat"], now):
        raise UnauthenticatedError(detail="made while the clock was ahead")
    return _build_principal(claims), kid


def _read_signed(
    token: str, key: RSAPublicKey, issuer_url: str, audience: str | None
) -> Mapping[str, Any]:
    """Return the claims of a token with a right signature, `typ`, `iss` and `aud`."""
    try:
        decoded = jwt.decode_complete(
            token,
            key,
            algorithms=[ALGORITHM],
            audience=audience,
            issuer=issuer_url,
            # PyJWT reads the system's clock; the caller compares the times with ours.
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
    if decoded["header"].get("typ") not in ACCEPTED_TYPS:
        raise UnauthenticatedError(detail="not an access token")
    claims: Mapping[str, Any] = decoded["payload"]
    return claims


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
