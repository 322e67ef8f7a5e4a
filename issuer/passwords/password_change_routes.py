"""`/auth/password`."""

from typing import Annotated, Literal

from fastapi import APIRouter, Depends, Request, Response
from pydantic import ConfigDict, Field

from issuer.feed.change_requests import (
    REVOKED_ANSWER,
    FollowersAnswer,
    answer_revoked,
)
from issuer.http.authorization.authentication import Authenticated
from issuer.http.callers import caller_of
from issuer.http.dependencies import PartOf
from issuer.http.strict_json import StrictRoute
from issuer.login.login_routes import LoginAnswer
from issuer.passwords.password_change import PasswordChange
from issuer.sessions.answers import StrictBody, forbid_storing


class PasswordBody(StrictBody):
    """The password there is and the one there shall be.

    Personal keys end with the other sessions, unless `keep_keys` is true.
    """

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [
                {
                    "current_password": "correct horse battery",
                    "new_password": "another horse battery",
                },
                {
                    "current_password": "correct horse battery",
                    "new_password": "another horse battery",
                    "keep_keys": True,
                },
            ]
        }
    )

    current_password: str
    new_password: str
    keep_keys: bool = Field(
        default=False,
        description="Whether personal keys go on. Their access tokens of before end "
        "all the same: a script exchanges its key again.",
    )


class PasswordAnswer(LoginAnswer):
    """New tokens for this session; with `Prefer: wait=S` also whether all others ended.

    `position`, `confirmed` and `followers` are those of a logout's answer.
    """

    revoked: Literal[True] | None = None
    position: int | None = None
    confirmed: bool | None = None
    followers: FollowersAnswer | None = None


router = APIRouter(route_class=StrictRoute, tags=["sessions"])
_PasswordChange = Annotated[PasswordChange, Depends(PartOf(PasswordChange))]


@router.post("/auth/password", summary="Change one's password", **REVOKED_ANSWER)
async def change_password(
    body: PasswordBody,
    request: Request,
    response: Response,
    principal: Authenticated,
    password_change: _PasswordChange,
) -> PasswordAnswer:
    """Replace the password, end all other sessions, answer new tokens for this.

    All personal keys end, too, unless `keep_keys` is true.
    """
    done, position = await password_change.change(
        principal,
        body.current_password,
        body.new_password,
        caller_of(request),
        keep_keys=body.keep_keys,
    )
    forbid_storing(response)
    tokens = LoginAnswer.of_login(done).model_dump()
    revoked_answer = await answer_revoked(request, response, position)
    if revoked_answer.confirmed is None:
        return PasswordAnswer(**tokens)
    return PasswordAnswer(**tokens, **revoked_answer.model_dump())
