"""`/auth/login` and `/auth/password`."""

from typing import Annotated

from fastapi import APIRouter, Depends, Request, Response

from issuer.accounts.login import Login
from issuer.accounts.password_change import PasswordChange
from issuer.callers import CallerOf
from issuer.dependencies import Authenticate
from issuer.strict_json import StrictRoute
from issuer.tokens.access import Principal
from issuer.tokens.answers import StrictBody, TokenAnswer, forbid_storing


class LoginBody(StrictBody):
    """What a user types. No length is checked here: every refusal costs one hash."""

    username: str
    password: str


class PasswordBody(StrictBody):
    """The password there is and the one there shall be."""

    current_password: str
    new_password: str


def build_router(
    login: Login,
    password_change: PasswordChange,
    authenticate: Authenticate,
    caller_of: CallerOf,
) -> APIRouter:
    """Return the routes that take passwords.

    Args:
        login: opens sessions.
        password_change: replaces passwords.
        authenticate: reads the Bearer token.
        caller_of: tells where a request came from.
    """
    router = APIRouter(route_class=StrictRoute, tags=["sessions"])

    @router.post("/auth/login", summary="Log in")
    async def log_in(
        body: LoginBody, request: Request, response: Response
    ) -> TokenAnswer:
        """Answer the tokens of a new session."""
        pair = await login.log_in(body.username, body.password, caller_of(request))
        forbid_storing(response)
        return TokenAnswer.of(pair)

    @router.post("/auth/password", summary="Change one's password")
    async def change_password(
        body: PasswordBody,
        request: Request,
        response: Response,
        principal: Annotated[Principal, Depends(authenticate)],
    ) -> TokenAnswer:
        """Replace the password, end all other sessions, answer new tokens for this."""
        pair = await password_change.change(
            principal, body.current_password, body.new_password, caller_of(request)
        )
        forbid_storing(response)
        return TokenAnswer.of(pair)

    return router
