"""`/oauth2/token`, `/oauth2/revoke` and `/oauth2/introspect`, for clients.

RFC 6749 sections 4.4 and 5, RFC 7009, RFC 7662. Bodies are forms, errors are OAuth's.
`build_router` is long because every route is a closure in it.
"""

from collections.abc import Mapping
from typing import Any, Final, Literal

from fastapi import APIRouter, Request, Response
from fastapi.responses import JSONResponse
from pydantic import BaseModel

from issuer.callers import CallerOf
from issuer.clients.clients import AuthenticatedClient, Clients
from issuer.clients.credentials import read_credentials
from issuer.clients.token_status import TokenStatus
from issuer.errors import InvalidRequestError, UnsupportedGrantTypeError
from issuer.strict_json import read_form
from issuer.tokens.answers import forbid_storing

CLIENT_CREDENTIALS: Final = "client_credentials"


class ClientTokenAnswer(BaseModel):
    """A client's own token; no refresh token comes with it (RFC 6749, 4.4.3)."""

    access_token: str
    token_type: Literal["Bearer"] = "Bearer"  # noqa: S105
    expires_in: int
    scope: str


def build_router(
    clients: Clients, token_status: TokenStatus, caller_of: CallerOf
) -> APIRouter:
    """Return the OAuth endpoints.

    Args:
        clients: authenticates clients and gives them tokens.
        token_status: introspects and revokes.
        caller_of: tells where a request came from.
    """
    router = APIRouter(tags=["oauth2"])

    @router.post(
        "/oauth2/token",
        summary="Get a token (RFC 6749)",
        openapi_extra=_describe_form("grant_type", "scope"),
    )
    async def grant_token(request: Request, response: Response) -> ClientTokenAnswer:
        """Answer an access token in which the client speaks for itself."""
        form = await read_form(request)
        if _require(form, "grant_type") != CLIENT_CREDENTIALS:
            raise UnsupportedGrantTypeError
        client = await _authenticate(clients, request, form)
        minted, scope = await clients.grant_credentials(client, form.get("scope"))
        forbid_storing(response)
        return ClientTokenAnswer(
            access_token=minted.access_token, expires_in=minted.expires_in, scope=scope
        )

    @router.post(
        "/oauth2/revoke",
        summary="Revoke a token (RFC 7009)",
        openapi_extra=_describe_form("token", "token_type_hint"),
        response_class=Response,
    )
    async def revoke(request: Request) -> Response:
        """Answer 200 without a body, be the token revoked now or dead before."""
        form = await read_form(request)
        client = await _authenticate(clients, request, form)
        await token_status.revoke(client, _require(form, "token"), caller_of(request))
        return Response()

    @router.post(
        "/oauth2/introspect",
        summary="Ask about a token (RFC 7662)",
        openapi_extra=_describe_form("token", "token_type_hint"),
    )
    async def introspect(request: Request) -> JSONResponse:
        """Answer what the token says while it counts, `{"active": false}` after."""
        form = await read_form(request)
        client = await _authenticate(clients, request, form)
        told = await token_status.introspect(client, _require(form, "token"))
        response = JSONResponse(told)
        forbid_storing(response)
        return response

    return router


async def _authenticate(
    clients: Clients, request: Request, form: Mapping[str, str]
) -> AuthenticatedClient:
    authorization = request.headers.getlist("Authorization")
    return await clients.authenticate(read_credentials(authorization, form))


def _require(form: Mapping[str, str], parameter: str) -> str:
    if parameter not in form:
        raise InvalidRequestError(f"The parameter {parameter} is missing.")
    return form[parameter]


def _describe_form(required: str, optional: str) -> dict[str, Any]:
    names = (required, optional, "client_id", "client_secret")
    return {
        "requestBody": {
            "required": True,
            "content": {
                "application/x-www-form-urlencoded": {
                    "schema": {
                        "type": "object",
                        "required": [required],
                        "properties": {name: {"type": "string"} for name in names},
                    }
                }
            },
        }
    }
