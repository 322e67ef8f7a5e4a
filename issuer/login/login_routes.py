"""`/auth/login`."""

from typing import Annotated, Any, Final

from fastapi import APIRouter, Depends, Request, Response

from issuer.http.callers import caller_of
from issuer.http.dependencies import PartOf
from issuer.http.strict_json import StrictRoute
from issuer.login.login import Login
from issuer.login.login_completion import LoggedIn
from issuer.sessions.answers import StrictBody, TokenAnswer, forbid_storing

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

    `device_token` is what an earlier login on this device was answered. `scope` asks
    for a part of the user's scope, space-delimited; left out, the session gets all of
    it.
    """

    username: str
    password: str
    device_token: str | None = None
    scope: str | None = None


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


router = APIRouter(route_class=StrictRoute, tags=["sessions"])
_Login = Annotated[Login, Depends(PartOf(Login))]


@router.post(
    LOGIN_PATH,
    summary="Log in",
    responses=_CODE_TO_FOLLOW,
    response_model_exclude_none=True,
)
async def log_in(
    body: LoginBody, request: Request, response: Response, login: _Login
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
