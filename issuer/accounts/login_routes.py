"""`/auth/login` and `/auth/password`."""

from typing import Annotated, Any, Final, Literal

from fastapi import APIRouter, Depends, Request, Response
from pydantic import ConfigDict, Field

from issuer.accounts.login import Login
from issuer.accounts.login_completion import LoggedIn
from issuer.accounts.password_change import PasswordChange
from issuer.callers import CallerOf
from issuer.dependencies import Authenticate
from issuer.strict_json import StrictRoute
from issuer.tokens.access import Principal
from issuer.tokens.answers import StrictBody, TokenAnswer, forbid_storing
from issuer.tokens.revoked_answers import (
    REVOKED_ANSWER,
    FollowersAnswer,
    RevokedAnswers,
)

LOGIN_PATH: Final = "/auth/login"
#: FastAPI merges this into the operation.
_CODE_TO_FOLLOW: Final[dict[int | str, dict[str, Any]]] = {
    403: {
        "description": "The password is right, a code of the second factor is needed.",
        "content": {
            "application/problem+json": {
                "schema": {
                    "allOf": [
                        {"$ref": "#/components/schemas/Problem"},
                        {
                            "type": "object",
                            "required": ["mfa_token", "expires_in"],
                            "properties": {
                                "mfa_token": {"type": "string"},
                                "expires_in": {"type": "integer"},
                            },
                        },
                    ]
                }
            }
        },
    }
}


class LoginBody(StrictBody):
    """What a user types. No length is checked here: every refusal costs one hash.

    `device_token` is what an earlier login on this device was answered. `scope` asks for
    a part of the user's scope, space-delimited; left out, the session gets all of it.
    """

    username: str
    password: str
    device_token: str | None = None
    scope: str | None = None


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


class LoginAnswer(TokenAnswer):
    """The tokens of a new session.

    `device_token`: keep it on this device and send it with the next login, which then
    does not wait for the failures of others. It is no credential.
    """

    device_token: str | None = None

    @classmethod
    def of_login(cls, done: LoggedIn) -> "LoginAnswer":
        """Return the answer that hands over what a login made."""
        members = TokenAnswer.of(done.pair).model_dump()
        return cls(**members, device_token=done.device_token)


class PasswordAnswer(LoginAnswer):
    """New tokens for this session; with `Prefer: wait=S` also whether all others ended.

    `position`, `confirmed` and `followers` are those of a logout's answer.
    """

    revoked: Literal[True] | None = None
    position: int | None = None
    confirmed: bool | None = None
    followers: FollowersAnswer | None = None


def build_router(
    login: Login,
    password_change: PasswordChange,
    revoked: RevokedAnswers,
    authenticate: Authenticate,
    caller_of: CallerOf,
) -> APIRouter:
    """Return the routes that take passwords.

    Args:
        login: opens sessions.
        password_change: replaces passwords.
        revoked: tells that the other sessions ended, if the caller prefers to wait.
        authenticate: reads the Bearer token.
        caller_of: tells where a request came from.
    """
    router = APIRouter(route_class=StrictRoute, tags=["sessions"])

    @router.post(
        LOGIN_PATH,
        summary="Log in",
        responses=_CODE_TO_FOLLOW,
        response_model_exclude_none=True,
    )
    async def log_in(
        body: LoginBody, request: Request, response: Response
    ) -> LoginAnswer:
        """Answer the tokens of a new session.

        403 `mfa_required`: the password is right, and `mfa_token` goes to
        `/auth/login/second-factor` with a code, within `expires_in` seconds.
        """
        done = await login.log_in(
            body.username,
            body.password,
            caller_of(request),
            device_token=body.device_token,
            scope=body.scope,
        )
        forbid_storing(response)
        return LoginAnswer.of_login(done)

    @router.post("/auth/password", summary="Change one's password", **REVOKED_ANSWER)
    async def change_password(
        body: PasswordBody,
        request: Request,
        response: Response,
        principal: Annotated[Principal, Depends(authenticate)],
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
        told = await revoked.answer(request, response, position)
        if told.confirmed is None:
            return PasswordAnswer(**tokens)
        return PasswordAnswer(**tokens, **told.model_dump())

    return router
