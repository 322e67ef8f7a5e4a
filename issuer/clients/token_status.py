"""Introspection and revocation of tokens by clients."""

from __future__ import annotations

from typing import Any, Final

from issuer.acts import Caller
from issuer.clients.authentication import AuthenticatedClient, PublicClient
from issuer.errors import (
    InvalidGrantError,
    InvalidRequestError,
    NotFoundError,
    UnauthenticatedError,
)
from issuer.feed.feed import Position
from issuer.http.authorization.login_methods import find_acr
from issuer.http.authorization.principals import PERSONAL_KEY_CLIENT_ID, Principal
from issuer.http.authorization.scopes import (
    INTROSPECT_SCOPE,
    REVOKE_SCOPE,
    format_scope,
)
from issuer.personal_keys import personal_key_form
from issuer.personal_keys.personal_keys import PersonalKeys
from issuer.revoking.revocations import Revocations
from issuer.sessions import refresh
from issuer.sessions.logout import Logout
from issuer.sessions.open_sessions import FIRST_PARTY_CLIENT_ID
from issuer.tokens.access import AccessTokens

_PUBLIC_CLIENT_IDS: Final = (FIRST_PARTY_CLIENT_ID, PERSONAL_KEY_CLIENT_ID)
_PASTED: Final = " \t\r\n\"'="


class TokenStatus:
    """Introspection (RFC 7662) and revocation (RFC 7009) for authenticated clients.

    Args:
        access_tokens: verify access tokens.
        logout: ends sessions.
        revocations: revoke single access tokens.
        personal_keys: revoke keys.
    """

    def __init__(
        self,
        access_tokens: AccessTokens,
        logout: Logout,
        revocations: Revocations,
        personal_keys: PersonalKeys,
    ) -> None:
        self._access_tokens = access_tokens
        self._logout = logout
        self._revocations = revocations
        self._personal_keys = personal_keys

    async def introspect(
        self, client: AuthenticatedClient, token: str
    ) -> dict[str, Any]:
        """Return the introspection answer for an access token (RFC 7662, section 2.2).

        A token that is expired, revoked or not ours is `{"active": false}`. So is one
        of another client, unless the client holds `gatehouse:introspect`: other clients
        cannot learn here that a token is valid. Refresh tokens and personal keys are
        only for the issuer and are always inactive: a service that took one for an
        access token would admit it.

        Raises:
            UnavailableError: when the database is away.
        """
        try:
            principal = await self._access_tokens.verify(token, is_for_anyone=True)
        except UnauthenticatedError:
            return {"active": False}
        is_own = principal.client_id == client.client_id
        if not is_own and INTROSPECT_SCOPE not in client.scopes:
            return {"active": False}
        return _describe(principal, self._access_tokens.issuer_url)

    async def is_of_a_key(self, token: str) -> bool:
        """Return whether this is a personal key, or an access token from one.

        Its bearer is a script that is not a client: it got the token without a client
        (RFC 8693, section 2.1), and may revoke it in the same way.

        Raises:
            UnavailableError: when the database is away.
        """
        token = trim_pasted(token)
        if token.startswith(personal_key_form.PREFIX):
            return True
        try:
            found = await self._access_tokens.read_recognised(token)
        except UnauthenticatedError:
            return False
        return found.principal.is_personal_key

    async def revoke(
        self, client: AuthenticatedClient | PublicClient, token: str, caller: Caller
    ) -> Position | None:
        """Revoke a token; an unknown or ended one is not an error.

        A refresh token ends its session with all access tokens; an access token ends
        alone (RFC 7009, section 2.1). A personal key ends with all its tokens, and
        needs no permission: a finder of a key could do worse.

        Returns:
            The feed position at which verifiers refuse it, also for a repeated call.
            None when the string is not recognised: without an entry nothing can be
            confirmed (R50a).

        Raises:
            InvalidGrantError: when it was issued to another client, and this one does
                not hold `gatehouse:revoke`.
            UnavailableError: when the database is away.
        """
        token = trim_pasted(token)
        if token.startswith(refresh.PREFIX):
            return await self._revoke_refresh(client, token, caller)
        if token.startswith(personal_key_form.PREFIX):
            return await self._revoke_key(client, token, caller)
        return await self._revoke_access(client, token, caller)

    async def _revoke_refresh(
        self, client: AuthenticatedClient | PublicClient, token: str, caller: Caller
    ) -> Position | None:
        try:
            owner = await self._logout.find_owner(token)
        except InvalidGrantError:
            return None
        _require_right(client, owner.client_id)
        return await self._logout.end_session(owner.sid, caller, actor=client.client_id)

    async def _revoke_key(
        self, client: AuthenticatedClient | PublicClient, token: str, caller: Caller
    ) -> Position | None:
        try:
            return await self._personal_keys.revoke_shown(
                token, actor=client.client_id, caller=caller
            )
        except (InvalidRequestError, NotFoundError):
            return None

    async def _revoke_access(
        self, client: AuthenticatedClient | PublicClient, token: str, caller: Caller
    ) -> Position | None:
        try:
            found = await self._access_tokens.read_recognised(token)
        except UnauthenticatedError:
            return None
        principal = found.principal
        _require_right(client, principal.client_id)
        if found.is_revoked:
            return await self._revocations.newest_position()
        return await self._revocations.revoke_token(
            principal.jti,
            caller,
            actor=client.client_id,
            expires_at=principal.expires_at,
        )


def trim_pasted(token: str) -> str:
    """Return a token without characters that are often pasted with it.

    These are white space and line ends, quotes, `=` of padding or of a variable, and
    the scheme `Bearer`. None of our tokens begins or ends with these characters.
    """
    token = token.strip(_PASTED)
    if token[:7].lower() == "bearer ":
        token = token[7:].strip(_PASTED)
    return token


def _require_right(client: AuthenticatedClient | PublicClient, issued_to: str) -> None:
    is_own = client.client_id == issued_to
    if isinstance(client, PublicClient):
        # Neither name proves anything; the bearer proves itself with the token.
        is_own = issued_to in _PUBLIC_CLIENT_IDS
    if not is_own and REVOKE_SCOPE not in client.scopes:
        # RFC 7009, section 2.1: refused with an error of RFC 6749, 5.2.
        raise InvalidGrantError("The token was issued to another client.")


def _describe(principal: Principal, issuer_url: str) -> dict[str, Any]:
    """Return the members of RFC 7662, section 2.2, for a token that is valid."""
    answer: dict[str, Any] = {
        "active": True,
        "token_type": "Bearer",
        "iss": issuer_url,
        "sub": principal.subject,
        "aud": principal.audience,
        "exp": principal.expires_at,
        "iat": principal.issued_at,
        "jti": principal.jti,
        "client_id": principal.client_id,
        "scope": format_scope(principal.scopes),
        "sid": principal.sid,
        "gen": principal.generation,
        "roles": list(principal.roles),
        "auth_time": principal.auth_time,
    }
    if principal.amr:
        # RFC 9470, section 6.2.
        answer |= {"amr": list(principal.amr), "acr": find_acr(principal.amr)}
    if principal.username is not None:
        answer["username"] = principal.username
    return answer
