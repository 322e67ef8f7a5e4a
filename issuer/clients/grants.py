"""The grant types of the token endpoint, one function for each.

- `client_credentials` (RFC 6749, 4.4): a token of the client's own.
- `refresh_token` (RFC 6749, 6): continues a session of the first party.
- token exchange (RFC 8693): a personal key becomes an access token. The key is neither
  a password nor a refresh token; token exchange is the standard way to get an access
  token for another kind of credential, and common clients support it.
- `password` (RFC 6749, 4.3): for old programs; off by default, following RFC 9700,
  section 2.4.

Answers do not describe why a refresh token, a key or a password is not valid.
"""

from __future__ import annotations

import uuid
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from issuer.acts import Act, Caller
from issuer.audit.counts import AuditCounts
from issuer.clients.audiences import choose_audience
from issuer.clients.authentication import (
    AuthenticatedClient,
    ClientAuthentication,
    PublicClient,
)
from issuer.clock import seconds
from issuer.errors import (
    InvalidRequestError,
    UnauthorizedClientError,
    UnsupportedGrantTypeError,
)
from issuer.foundation import Foundation
from issuer.http.authorization.scopes import format_scope, parse_scope, require_subset
from issuer.login.login import Login
from issuer.personal_keys.personal_key_exchange import PersonalKeyExchange
from issuer.sessions.sessions import Sessions, TokenPair
from issuer.tokens.access import AccessTokens
from issuer.tokens.minting import AccessGrant

CLIENT_CREDENTIALS: Final = "client_credentials"
REFRESH_TOKEN: Final = "refresh_token"  # noqa: S105
TOKEN_EXCHANGE: Final = "urn:ietf:params:oauth:grant-type:token-exchange"  # noqa: S105
PASSWORD: Final = "password"  # noqa: S105
ACCESS_TOKEN_TYPE: Final = "urn:ietf:params:oauth:token-type:access_token"  # noqa: S105
#: RFC 8693, section 3: our own URI for our own kind of token.
PERSONAL_KEY_TYPE: Final = "urn:gatehouse:token-type:personal-key"


@dataclass(frozen=True, slots=True)
class TokenRequest:
    """A request to the token endpoint.

    Attributes:
        form: its parameters, each once.
        authorization: its `Authorization` headers.
        caller: its origin.
    """

    form: Mapping[str, str]
    authorization: Sequence[str]
    caller: Caller

    def require(self, parameter: str) -> str:
        """Return a parameter.

        Raises:
            InvalidRequestError: when it is missing.
        """
        if parameter not in self.form:
            raise InvalidRequestError(f"The parameter {parameter} is missing.")
        return self.form[parameter]


#: The members of an answer (RFC 6749, section 5.1; RFC 8693, section 2.2.1).
TokenAnswerMembers = dict[str, str | int]


class Grants:
    """Answers requests for tokens.

    Args:
        base: gives the clock, and the setting that switches the password grant on.
        authentication: finds the client of the request.
        access_tokens: mint the tokens.
        sessions: refresh tokens.
        key_exchange: exchanges personal keys.
        counts: records each token of a client's own.
        login: opens sessions by password.
    """

    def __init__(
        self,
        base: Foundation,
        authentication: ClientAuthentication,
        access_tokens: AccessTokens,
        sessions: Sessions,
        key_exchange: PersonalKeyExchange,
        counts: AuditCounts,
        login: Login,
    ) -> None:
        self._authentication = authentication
        self._access_tokens = access_tokens
        self._sessions = sessions
        self._key_exchange = key_exchange
        self._clock = base.clock
        self._counts = counts
        self._login = login
        self._by_type: dict[
            str, Callable[[TokenRequest], Awaitable[TokenAnswerMembers]]
        ] = {
            CLIENT_CREDENTIALS: self._grant_own,
            REFRESH_TOKEN: self._refresh,
            TOKEN_EXCHANGE: self._exchange,
        }
        if base.settings.password_grant:
            self._by_type[PASSWORD] = self._take_password

    @property
    def types(self) -> tuple[str, ...]:
        """The supported grant types, for the metadata."""
        return tuple(self._by_type)

    async def answer(self, request: TokenRequest) -> TokenAnswerMembers:
        """Return the members of the answer to a request.

        Raises:
            InvalidRequestError: when a parameter is missing or malformed, or a personal
                key is not valid.
            UnsupportedGrantTypeError: for another grant type.
            InvalidClientError: when there is no client, or it does not authenticate.
            UnauthorizedClientError: when the grant is not for this client.
            InvalidGrantError: when a refresh token is not valid.
            InvalidCredentialsError: when a password is wrong.
            InvalidScopeError: when the scope exceeds what may be granted.
            InvalidTargetError: when the audience is not allowed.
            UnavailableError: when the database is away or there is no signing key.
        """
        grant = self._by_type.get(request.require("grant_type"))
        if grant is None:
            raise UnsupportedGrantTypeError
        return await grant(request)

    async def _grant_own(self, request: TokenRequest) -> TokenAnswerMembers:
        form = request.form
        now = seconds(self._clock)
        client = await self._authentication.authenticate(
            request.authorization, form, request.caller
        )
        wanted = client.scopes
        if "scope" in form:
            wanted = require_subset(parse_scope(form["scope"]), client.scopes)
        audience = choose_audience(form, client.audiences, self._access_tokens.audience)
        grant = AccessGrant(
            subject=client.client_id,
            client_id=client.client_id,
            sid=str(uuid.uuid4()),
            generation=client.generation,
            scope=format_scope(wanted),
            roles=(),
            auth_time=now,
            audience=audience,
        )
        act = Act("client.token_granted", client.client_id, client.client_id)
        await self._counts.note_grant(act, request.caller)
        minted = await self._access_tokens.mint(grant, now)
        return _build_answer(minted.access_token, minted.expires_in, grant.scope)

    async def _refresh(self, request: TokenRequest) -> TokenAnswerMembers:
        client = await self._identify(request)
        self._require_own_audience(request)
        pair = await self._sessions.refresh(
            request.require("refresh_token"),
            request.caller,
            client_id=client.client_id,
            scope=request.form.get("scope"),
        )
        return _answer_pair(pair)

    async def _take_password(self, request: TokenRequest) -> TokenAnswerMembers:
        _require_public(await self._identify(request))
        self._require_own_audience(request)
        # RFC 6749, section 4.3, knows no device.
        done = await self._login.log_in(
            request.require("username"),
            request.require("password"),
            request.caller,
            scope=request.form.get("scope"),
        )
        return _answer_pair(done.pair)

    async def _exchange(self, request: TokenRequest) -> TokenAnswerMembers:
        # The key is the credential; no client has to be named (RFC 8693, 2.1).
        if request.authorization or {"client_id", "client_secret"} & set(request.form):
            _require_public(await self._identify(request))
        if request.require("subject_token_type") != PERSONAL_KEY_TYPE:
            raise InvalidRequestError(
                f"subject_token_type must be {PERSONAL_KEY_TYPE}."
            )
        wanted = request.form.get("requested_token_type", ACCESS_TOKEN_TYPE)
        if wanted != ACCESS_TOKEN_TYPE or "actor_token" in request.form:
            raise InvalidRequestError(
                "Only an access token can be requested, and for no other subject."
            )
        self._require_own_audience(request)
        minted, scope = await self._key_exchange.exchange(
            request.require("subject_token"),
            request.form.get("scope"),
            request.caller,
        )
        answer = _build_answer(minted.access_token, minted.expires_in, scope)
        return {**answer, "issued_token_type": ACCESS_TOKEN_TYPE}

    async def _identify(
        self, request: TokenRequest
    ) -> AuthenticatedClient | PublicClient:
        return await self._authentication.identify(
            request.authorization, request.form, request.caller
        )

    def _require_own_audience(self, request: TokenRequest) -> None:
        choose_audience(request.form, frozenset(), self._access_tokens.audience)


def _require_public(client: AuthenticatedClient | PublicClient) -> None:
    if not isinstance(client, PublicClient):
        raise UnauthorizedClientError


def _answer_pair(pair: TokenPair) -> TokenAnswerMembers:
    answer = _build_answer(pair.access_token, pair.expires_in, pair.scope)
    return {**answer, "refresh_token": pair.refresh_token}


def _build_answer(access_token: str, expires_in: int, scope: str) -> TokenAnswerMembers:
    return {
        "access_token": access_token,
        "token_type": "Bearer",
        "expires_in": expires_in,
        "scope": scope,
    }
