"""`/users`: accounts, for administrators, and for each user their own.

`build_router` is long because every route is a closure in it.
"""

import re
from typing import Annotated, Final
from uuid import UUID

from fastapi import APIRouter, Depends, Request, Response
from pydantic import BaseModel, Field

from issuer.accounts.names import normalise_username
from issuer.accounts.users import MAX_PAGE, Users, UserView
from issuer.callers import CallerOf
from issuer.dependencies import Authenticate
from issuer.errors import FieldProblem, ForbiddenError, InvalidRequestError
from issuer.strict_json import StrictRoute, read_query
from issuer.tokens.access import Principal
from issuer.tokens.answers import StrictBody
from issuer.tokens.logout import require_person
from issuer.tokens.scopes import ADMIN_SCOPE
from shared import base64url

_LIMIT: Final = re.compile(r"[1-9][0-9]{0,2}")
_PAGE: Final = {
    "parameters": [
        {
            "name": "limit",
            "in": "query",
            "schema": {"type": "integer", "minimum": 1, "maximum": MAX_PAGE},
        },
        {"name": "cursor", "in": "query", "schema": {"type": "string"}},
    ]
}


class NewUserBody(StrictBody):
    """An account to make; `roles` names roles that exist."""

    username: str
    password: str
    roles: list[Annotated[str, Field(min_length=1, max_length=64)]] = Field(
        default=[], max_length=32
    )


class UserAnswer(BaseModel):
    """An account; times are Unix seconds."""

    id: str
    username: str
    roles: list[str]
    is_disabled: bool
    created_at: int
    updated_at: int
    password_changed_at: int
    version: int

    @classmethod
    def of(cls, user: UserView) -> "UserAnswer":
        """Return the answer that shows this account."""
        return cls(
            id=user.id,
            username=user.username,
            roles=list(user.roles),
            is_disabled=user.is_disabled,
            created_at=user.created_at,
            updated_at=user.updated_at,
            password_changed_at=user.password_changed_at,
            version=user.version,
        )


class UsersAnswer(BaseModel):
    """One page of accounts, by name; `next_cursor` asks for the next, null: the last."""

    users: list[UserAnswer]
    next_cursor: str | None


def build_router(
    users: Users, authenticate: Authenticate, caller_of: CallerOf
) -> APIRouter:
    """Return the routes about accounts.

    Args:
        users: makes and reads them.
        authenticate: reads the Bearer token.
        caller_of: tells where a request came from.
    """
    router = APIRouter(route_class=StrictRoute, tags=["users"])
    administrator = Annotated[
        Principal, Depends(authenticate.require_scope(ADMIN_SCOPE))
    ]
    authenticated = Annotated[Principal, Depends(authenticate)]

    @router.post("/users", status_code=201, summary="Make an account")
    async def create_user(
        body: NewUserBody, request: Request, response: Response, admin: administrator
    ) -> UserAnswer:
        """Answer the new account; `Location` names it."""
        user = await users.create(
            body.username,
            body.password,
            body.roles,
            by=admin.subject,
            caller=caller_of(request),
        )
        response.headers["Location"] = f"/users/{user.id}"
        return UserAnswer.of(user)

    @router.get("/users", summary="List accounts", openapi_extra=_PAGE)
    async def list_users(request: Request, admin: administrator) -> UsersAnswer:
        """Answer one page of accounts."""
        query = read_query(request, ("limit", "cursor"))
        limit = _read_limit(query.get("limit", str(MAX_PAGE)))
        after = _read_cursor(query["cursor"]) if "cursor" in query else ""
        # One more than is shown tells whether another page follows.
        found = await users.list_page(after, limit + 1)
        page = found[:limit]
        has_more = len(found) > limit
        return UsersAnswer(
            users=[UserAnswer.of(user) for user in page],
            next_cursor=_build_cursor(page[-1].username) if has_more else None,
        )

    @router.get("/users/me", summary="Show one's own account")
    async def show_me(principal: authenticated) -> UserAnswer:
        """Answer the account of the Bearer token's user."""
        require_person(principal)
        return UserAnswer.of(await users.get(principal.subject))

    @router.get("/users/{user_id}", summary="Show an account")
    async def show_user(user_id: UUID, principal: authenticated) -> UserAnswer:
        """Answer the account, to an administrator or to its owner."""
        # Before looking: who may not ask does not learn whether it is there.
        if ADMIN_SCOPE not in principal.scopes and principal.subject != str(user_id):
            raise ForbiddenError
        return UserAnswer.of(await users.get(str(user_id)))

    return router


def _read_limit(text: str) -> int:
    if not _LIMIT.fullmatch(text) or int(text) > MAX_PAGE:
        raise _refuse("limit", f"must be a whole number from 1 to {MAX_PAGE}")
    return int(text)


def _build_cursor(username: str) -> str:
    return base64url.encode(username.encode())


def _read_cursor(text: str) -> str:
    try:
        name = base64url.decode(text.encode("ascii")).decode()
        if name == normalise_username(name):
            return name
    except (ValueError, InvalidRequestError):
        pass
    raise _refuse("cursor", "must be one that an earlier page gave")


def _refuse(field: str, rule: str) -> InvalidRequestError:
    return InvalidRequestError(problems=[FieldProblem(field, rule)])
