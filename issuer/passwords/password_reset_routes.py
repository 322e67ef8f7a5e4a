"""`/users/{id}/password-reset` and `/auth/password-reset`."""

from typing import Annotated
from uuid import UUID

from fastapi import APIRouter, Depends, Request, Response
from pydantic import BaseModel

from issuer.feed.change_requests import REVOKED_ANSWER, RevokedAnswer, answer_revoked
from issuer.http.authorization.authentication import Administrator
from issuer.http.callers import caller_of
from issuer.http.dependencies import PartOf
from issuer.http.strict_json import StrictRoute
from issuer.passwords.password_reset import PasswordReset
from issuer.sessions.answers import StrictBody, forbid_storing


class ResetTokenAnswer(BaseModel):
    """A token that sets the user's password once; `expires_in` is in seconds.

    Hand it over in the fragment of a link to a page of your own (`https://.../#TOKEN`),
    never in its path or query: those stand in logs and in `Referer`.
    """

    reset_token: str
    expires_in: int


class ResetBody(StrictBody):
    """A token that was handed out, and the password to set."""

    reset_token: str
    new_password: str


router = APIRouter(route_class=StrictRoute)
_PasswordReset = Annotated[PasswordReset, Depends(PartOf(PasswordReset))]


@router.post(
    "/users/{user_id}/password-reset",
    status_code=201,
    summary="Let a user set a new password",
    tags=["users"],
)
async def allow_reset(
    user_id: UUID,
    request: Request,
    response: Response,
    admin: Administrator,
    password_reset: _PasswordReset,
) -> ResetTokenAnswer:
    """Answer a token to hand over; an earlier one is void."""
    made = await password_reset.allow(str(user_id), caller_of(request), actor=admin)
    forbid_storing(response)
    return ResetTokenAnswer(reset_token=made.token, expires_in=made.expires_in)


@router.post(
    "/auth/password-reset",
    summary="Set a new password with a reset token",
    tags=["sessions"],
    **REVOKED_ANSWER,
)
async def reset_password(
    body: ResetBody,
    request: Request,
    response: Response,
    password_reset: _PasswordReset,
) -> RevokedAnswer:
    """Set the password; end all sessions and personal keys. The user logs in anew."""
    position = await password_reset.set_password(
        body.reset_token, body.new_password, caller_of(request)
    )
    return await answer_revoked(request, response, position)
