"""`/oauth2/token`, `/oauth2/revoke` and `/oauth2/introspect`.

RFC 6749 sections 2.3 and 5, RFC 7009, RFC 7662. Bodies are forms, errors are OAuth's.
"""

from typing import Final, Literal

import orjson
from fastapi import APIRouter, Request, Response
from fastapi.responses import JSONResponse
from pydantic import BaseModel

from issuer.clients.authentication import (
    AuthenticatedClient,
    ClientAuthentication,
    PublicClient,
)
from issuer.clients.grants import Grants, TokenRequest
from issuer.clients.token_status import TokenStatus
from issuer.feed.change_requests import RevokedAnswer, answer_revoked
from issuer.http.authorization.principals import PERSONAL_KEY_CLIENT_ID
from issuer.http.callers import caller_of
from issuer.http.dependencies import PartOf
from issuer.http.preferences import read_preferred_wait
from issuer.http.strict_json import PlainRoute, read_form
from issuer.openapi.oauth_examples import (
    INTROSPECT_BODY,
    INTROSPECT_EXAMPLES,
    REVOKE_BODY,
    TOKEN_BODY,
    TOKEN_EXAMPLES,
)
from issuer.openapi.security import BY_CLIENT
from issuer.sessions.answers import forbid_storing

TOKEN_PATH: Final = "/oauth2/token"  # noqa: S105
REVOKE_PATH: Final = "/oauth2/revoke"
INTROSPECT_PATH: Final = "/oauth2/introspect"


class GrantAnswer(BaseModel):
    """Tokens (RFC 6749, section 5.1); `expires_in` is in seconds.

    A refresh token comes with a session, `issued_token_type` with an exchange.
    """

    access_token: str
    token_type: Literal["Bearer"]
    expires_in: int
    scope: str
    refresh_token: str = ""
    issued_token_type: str = ""


class IntrospectionAnswer(BaseModel):
    """What RFC 7662, section 2.2, tells; nothing but `active` when that is false."""

    active: bool


router = APIRouter(route_class=PlainRoute, tags=["oauth2"])
_AUTHENTICATION: Final = PartOf(ClientAuthentication)
_GRANTS: Final = PartOf(Grants)
_TOKEN_STATUS: Final = PartOf(TokenStatus)


@router.post(
    TOKEN_PATH,
    summary="Get a token (RFC 6749)",
    openapi_extra=TOKEN_BODY | BY_CLIENT,
    response_class=Response,
    responses={200: {"model": GrantAnswer, "content": TOKEN_EXAMPLES}},
)
async def grant_token(request: Request) -> Response:
    """Answer tokens for a client's credentials, a refresh token or a personal key."""
    wish = await _read_request(request)
    answered = await _GRANTS.find(request).answer(wish)
    response = Response(orjson.dumps(answered), media_type="application/json")
    forbid_storing(response)
    return response


@router.post(
    REVOKE_PATH,
    summary="Revoke a token (RFC 7009)",
    openapi_extra=REVOKE_BODY | BY_CLIENT,
    response_class=Response,
    responses={200: {"description": "With `Prefer: wait=S`.", "model": RevokedAnswer}},
)
async def revoke(request: Request) -> Response:
    """Answer 200, be the token revoked now or dead before.

    Without a body; with `Prefer: wait=S` as a logout answers, or `{"revoked": false}`
    when the string is not recognised (RFC 7009, section 2.2: the client ignores the
    body). A personal key, or an access token got for one, needs no client: the bearer
    may end it.
    """
    wish = await _read_request(request)
    if _names_no_client(wish) and await _TOKEN_STATUS.find(request).is_of_a_key(
        wish.form.get("token", "")
    ):
        client: AuthenticatedClient | PublicClient = PublicClient(
            PERSONAL_KEY_CLIENT_ID
        )
    else:
        client = await _AUTHENTICATION.find(request).identify(
            wish.authorization, wish.form, wish.caller
        )
    token = wish.require("token")
    position = await _TOKEN_STATUS.find(request).revoke(client, token, wish.caller)
    if read_preferred_wait(request.headers) is None:
        return Response()
    if position is None:
        return JSONResponse({"revoked": False})
    response = JSONResponse(None)
    answered = await answer_revoked(request, response, position)
    response.body = response.render(answered.model_dump())
    response.headers["Content-Length"] = str(len(response.body))
    return response


@router.post(
    INTROSPECT_PATH,
    summary="Ask about a token (RFC 7662)",
    openapi_extra=INTROSPECT_BODY | BY_CLIENT,
    response_class=Response,
    responses={200: {"model": IntrospectionAnswer, "content": INTROSPECT_EXAMPLES}},
)
async def introspect(request: Request) -> JSONResponse:
    """Answer what the token says while it counts, `{"active": false}` after."""
    wish = await _read_request(request)
    client = await _AUTHENTICATION.find(request).authenticate(
        wish.authorization, wish.form, wish.caller
    )
    answered = await _TOKEN_STATUS.find(request).introspect(
        client, wish.require("token")
    )
    response = JSONResponse(answered)
    forbid_storing(response)
    return response


async def _read_request(request: Request) -> TokenRequest:
    form = await read_form(request)
    authorization = request.headers.getlist("Authorization")
    return TokenRequest(form, authorization, caller_of(request))


def _names_no_client(request: TokenRequest) -> bool:
    """Whether no client is named, or only that which tokens of personal keys name."""
    named = request.form.get("client_id", PERSONAL_KEY_CLIENT_ID)
    return (
        not request.authorization
        and "client_secret" not in request.form
        and named == PERSONAL_KEY_CLIENT_ID
    )
