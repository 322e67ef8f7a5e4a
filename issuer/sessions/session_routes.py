"""`/auth/logout`, `/auth/logout-all` and one's own sessions' end."""

from typing import Annotated, Any, Final
from uuid import UUID

from fastapi import APIRouter, Depends, Request, Response

from issuer.feed.change_requests import REVOKED_ANSWER, RevokedAnswer, answer_revoked
from issuer.http.authorization.authentication import Authenticated, authenticate
from issuer.http.callers import caller_of
from issuer.http.dependencies import PartOf
from issuer.http.strict_json import StrictRoute, read_json
from issuer.sessions.logout import Logout, require_person
from issuer.sessions.refresh_routes import read_refresh_body

_LOGOUT_BODY: Final[dict[str, Any]] = {
    "security": [{"accessToken": []}, {}],
    "requestBody": {
        "required": False,
        "description": "Only without an access token.",
        "content": {
            "application/json": {
                "schema": {
                    "type": "object",
                    "required": ["refresh_token"],
                    "properties": {"refresh_token": {"type": "string"}},
                    "additionalProperties": False,
                }
            }
        },
    },
}


router = APIRouter(route_class=StrictRoute, tags=["sessions"])
_Logout = Annotated[Logout, Depends(PartOf(Logout))]


@router.post(
    "/auth/logout",
    summary="Log out",
    openapi_extra=_LOGOUT_BODY,
    **REVOKED_ANSWER,
)
async def log_out(
    request: Request, response: Response, logout: _Logout
) -> RevokedAnswer:
    """End the session of the Bearer token, or without one of `refresh_token`."""
    caller = caller_of(request)
    if request.headers.getlist("Authorization") or not await request.body():
        principal = await authenticate(request)
        position = await logout.log_out(principal, caller)
    else:
        body = read_refresh_body(await read_json(request))
        position = await logout.log_out_by_refresh(body.refresh_token, caller)
    return await answer_revoked(request, response, position)


@router.post("/auth/logout-all", summary="Log out everywhere", **REVOKED_ANSWER)
async def log_out_everywhere(
    request: Request, response: Response, principal: Authenticated, logout: _Logout
) -> RevokedAnswer:
    """End all sessions and personal keys of the user."""
    require_person(principal)
    position = await logout.log_out_everywhere(
        principal.subject, caller_of(request), actor=principal.subject
    )
    return await answer_revoked(request, response, position)


@router.delete(
    "/auth/sessions/{sid}",
    summary="End one of one's own sessions",
    **REVOKED_ANSWER,
)
async def end_session(
    sid: UUID,
    request: Request,
    response: Response,
    principal: Authenticated,
    logout: _Logout,
) -> RevokedAnswer:
    """End the session, be it this one or another."""
    position = await logout.end_own(principal, str(sid), caller_of(request))
    return await answer_revoked(request, response, position)
