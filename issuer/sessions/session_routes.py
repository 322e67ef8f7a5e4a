"""`/auth/logout`, `/auth/logout-all` and one's own sessions' end.

`build_router` is long because every route is a closure in it.
"""

from typing import Annotated, Any, Final
from uuid import UUID

from fastapi import APIRouter, Depends, Request, Response

from issuer.feed.revoked_answers import REVOKED_ANSWER, RevokedAnswer, RevokedAnswers
from issuer.http.authorization.authentication import Authenticate
from issuer.http.authorization.principals import Principal
from issuer.http.callers import CallerOf
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


def build_router(
    logout: Logout,
    revoked: RevokedAnswers,
    authenticate: Authenticate,
    caller_of: CallerOf,
) -> APIRouter:
    """Return the routes by which a signed-in user's sessions end.

    Args:
        logout: ends them.
        revoked: answers that, confirmed if the caller prefers to wait.
        authenticate: reads the Bearer token.
        caller_of: tells where a request came from.
    """
    router = APIRouter(route_class=StrictRoute, tags=["sessions"])
    authenticated = Annotated[Principal, Depends(authenticate)]

    @router.post(
        "/auth/logout",
        summary="Log out",
        openapi_extra=_LOGOUT_BODY,
        **REVOKED_ANSWER,
    )
    async def log_out(request: Request, response: Response) -> RevokedAnswer:
        """End the session of the Bearer token, or without one of `refresh_token`."""
        caller = caller_of(request)
        if request.headers.getlist("Authorization") or not await request.body():
            principal = await authenticate(request)
            position = await logout.log_out(principal, caller)
        else:
            body = read_refresh_body(await read_json(request))
            position = await logout.log_out_by_refresh(body.refresh_token, caller)
        return await revoked.answer(request, response, position)

    @router.post("/auth/logout-all", summary="Log out everywhere", **REVOKED_ANSWER)
    async def log_out_everywhere(
        request: Request, response: Response, principal: authenticated
    ) -> RevokedAnswer:
        """End all sessions and personal keys of the user."""
        require_person(principal)
        position = await logout.log_out_everywhere(
            principal.subject, caller_of(request), actor=principal.subject
        )
        return await revoked.answer(request, response, position)

    @router.delete(
        "/auth/sessions/{sid}",
        summary="End one of one's own sessions",
        **REVOKED_ANSWER,
    )
    async def end_session(
        sid: UUID, request: Request, response: Response, principal: authenticated
    ) -> RevokedAnswer:
        """End the session, be it this one or another."""
        position = await logout.end_own(principal, str(sid), caller_of(request))
        return await revoked.answer(request, response, position)

    return router
