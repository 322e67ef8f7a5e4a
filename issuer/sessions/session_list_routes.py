"""`/auth/sessions` and `/users/{id}/sessions`: sessions listed, and all or one ended.

`DELETE /auth/sessions/{sid}` stands with logout, in `session_routes.py`.
"""

from collections.abc import Sequence
from typing import Annotated, Any, Final
from uuid import UUID

from fastapi import APIRouter, Depends, Request, Response
from pydantic import BaseModel, ConfigDict

from issuer.feed.change_requests import (
    REVOKED_ANSWER,
    AdminChange,
    RevokedAnswer,
    answer_revoked,
)
from issuer.http.authorization.authentication import Administrator, Authenticated
from issuer.http.authorization.principals import Principal
from issuer.http.callers import caller_of
from issuer.http.dependencies import PartOf
from issuer.http.strict_json import StrictRoute
from issuer.sessions.logout import Logout
from issuer.sessions.session_list import SessionList, SessionView

_SESSION: Final[dict[str, Any]] = {
    "sid": "3f0f0c5e-6f0e-4f3b-9a57-0f5d8e0f7c11",
    "client_id": "gatehouse",
    "device_label": "Mozilla/5.0 (X11; Linux x86_64)",
    "address": "192.0.2.7",
    "created_at": 1_795_353_633,
    "last_used_at": 1_795_357_233,
    "expires_at": 1_797_945_633,
    "idle_expires_at": 1_795_962_033,
    "is_current": True,
}


class SessionAnswer(BaseModel):
    """One session; times are Unix seconds.

    It ends at `expires_at` at the latest, and at `idle_expires_at` unless its tokens
    are refreshed before. `is_current`: the request's own token is of it.
    """

    model_config = ConfigDict(json_schema_extra={"examples": [_SESSION]})

    sid: str
    client_id: str
    device_label: str
    address: str
    created_at: int
    last_used_at: int
    expires_at: int
    idle_expires_at: int
    is_current: bool


class SessionsAnswer(BaseModel):
    """A user's living sessions, the one used last first."""

    sessions: list[SessionAnswer]


router = APIRouter(route_class=StrictRoute, tags=["sessions"])
_SessionList = Annotated[SessionList, Depends(PartOf(SessionList))]
_Logout = Annotated[Logout, Depends(PartOf(Logout))]


@router.get("/auth/sessions", summary="List one's own sessions")
async def list_own_sessions(
    principal: Authenticated, sessions: _SessionList
) -> SessionsAnswer:
    """Answer the user's living sessions."""
    return _show(await sessions.list_own(principal), principal)


@router.delete(
    "/auth/sessions", summary="End all one's other sessions", **REVOKED_ANSWER
)
async def end_other_sessions(
    request: Request,
    response: Response,
    principal: Authenticated,
    sessions: _SessionList,
) -> RevokedAnswer:
    """End every session of the user but this one."""
    position = await sessions.end_others(principal, caller_of(request))
    return await answer_revoked(request, response, position)


@router.get("/users/{user_id}/sessions", summary="List a user's sessions")
async def list_sessions(
    user_id: UUID, admin: Administrator, sessions: _SessionList
) -> SessionsAnswer:
    """Answer the user's living sessions."""
    return _show(await sessions.list_of(str(user_id)), admin)


@router.delete(
    "/users/{user_id}/sessions",
    summary="End all sessions of a user",
    **REVOKED_ANSWER,
)
async def end_sessions(
    user_id: UUID,
    change: AdminChange,
    logout: _Logout,
) -> RevokedAnswer:
    """Log the user out everywhere: sessions and personal keys end."""
    position = await logout.log_out_everywhere(
        str(user_id), change.caller, actor=change.actor
    )
    return await change.answer_revoked(position)


@router.delete(
    "/users/{user_id}/sessions/{sid}",
    summary="End a session of a user",
    **REVOKED_ANSWER,
)
async def end_session(
    user_id: UUID,
    sid: UUID,
    change: AdminChange,
    sessions: _SessionList,
) -> RevokedAnswer:
    """End the session."""
    position = await sessions.end_of(
        str(user_id), str(sid), change.caller, actor=change.actor
    )
    return await change.answer_revoked(position)


def _show(views: Sequence[SessionView], principal: Principal) -> SessionsAnswer:
    return SessionsAnswer(
        sessions=[
            SessionAnswer(
                sid=view.sid,
                client_id=view.client_id,
                device_label=view.device_label,
                address=view.address,
                created_at=view.created_at,
                last_used_at=view.last_used_at,
                expires_at=view.expires_at,
                idle_expires_at=min(view.idle_expires_at, view.expires_at),
                is_current=view.sid == principal.sid,
            )
            for view in views
        ]
    )
