"""`/users`: accounts made, listed and shown, to administrators and to their owners."""

from typing import Annotated, Any, Final
from uuid import UUID

from fastapi import APIRouter, Depends, Request, Response

from issuer.accounts.user_answers import NewUserBody, UserAnswer, UsersAnswer
from issuer.accounts.user_list import (
    MAX_PAGE,
    UserFilter,
    UserList,
    UserOrder,
    normalise_prefix,
)
from issuer.accounts.users import Users
from issuer.errors import InvalidRequestError
from issuer.feed.change_requests import AdminChange
from issuer.http.authorization.authentication import (
    Administrator,
    Authenticated,
    require_administration,
)
from issuer.http.dependencies import PartOf
from issuer.http.preconditions import ETAG_HEADER, tag_answer
from issuer.http.strict_json import StrictRoute, read_limit, read_query
from issuer.sessions.logout import require_person

_BOOLEANS: Final = {"true": True, "false": False}
_SHOWN: Final[dict[int | str, dict[str, Any]]] = {
    200: {"description": "The account.", "headers": ETAG_HEADER}
}
_MADE: Final[dict[int | str, dict[str, Any]]] = {
    201: {"description": "The new account.", "headers": ETAG_HEADER}
}


def _parameter(name: str, description: str, **schema: object) -> dict[str, Any]:
    return {
        "name": name,
        "in": "query",
        "description": description,
        "schema": {"type": "string", **schema},
    }


_PARAMETERS: Final = [
    _parameter(
        "limit", "Accounts per page.", type="integer", minimum=1, maximum=MAX_PAGE
    ),
    _parameter(
        "cursor",
        "`next_cursor` of the page before; only with the same filter and sort.",
    ),
    _parameter(
        "sort",
        "`-` begins with the greatest.",
        enum=list(UserOrder),
        default="username",
    ),
    _parameter("username", "How the name begins.", minLength=1, maxLength=64),
    _parameter("role", "A role they hold.", minLength=1, maxLength=64),
    _parameter("disabled", "Whether they are disabled.", type="boolean"),
    _parameter("has_password", "Whether they have a password.", type="boolean"),
]


router = APIRouter(route_class=StrictRoute, tags=["users"])
_Users = Annotated[Users, Depends(PartOf(Users))]
_UserList = Annotated[UserList, Depends(PartOf(UserList))]


@router.post("/users", status_code=201, summary="Make an account", responses=_MADE)
async def create_user(
    body: NewUserBody,
    change: AdminChange,
    users: _Users,
) -> UserAnswer:
    """Answer the new account; `Location` names it."""
    user = await users.create(
        body.username,
        body.password,
        body.roles,
        actor=change.actor,
        caller=change.caller,
    )
    change.set_location(f"/users/{user.id}")
    return change.tag(UserAnswer.of(user))


@router.get(
    "/users", summary="List accounts", openapi_extra={"parameters": _PARAMETERS}
)
async def list_users(
    request: Request, admin: Administrator, user_list: _UserList
) -> UsersAnswer:
    """Answer one page of accounts; all given conditions apply."""
    query = read_query(request, [each["name"] for each in _PARAMETERS])
    page = await user_list.read_page(
        _read_filter(query),
        _read_order(query.get("sort", UserOrder.USERNAME)),
        read_limit(query, MAX_PAGE),
        query.get("cursor"),
    )
    return UsersAnswer(
        users=[UserAnswer.of(user) for user in page.rows],
        next_cursor=page.next_cursor,
    )


@router.get("/users/me", summary="Show one's own account", responses=_SHOWN)
async def show_me(
    response: Response, principal: Authenticated, users: _Users
) -> UserAnswer:
    """Answer the account of the Bearer token's user."""
    require_person(principal)
    return tag_answer(response, UserAnswer.of(await users.get(principal.subject)))


@router.get("/users/{user_id}", summary="Show an account", responses=_SHOWN)
async def show_user(
    user_id: UUID,
    request: Request,
    response: Response,
    principal: Authenticated,
    users: _Users,
) -> UserAnswer:
    """Answer the account, to an administrator or to its owner."""
    # Before looking: who may not ask does not learn whether it is there.
    if principal.subject != str(user_id):
        require_administration(request, principal)
    return tag_answer(response, UserAnswer.of(await users.get(str(user_id))))


def _read_filter(query: dict[str, str]) -> UserFilter:
    prefix, role = query.get("username"), query.get("role")
    return UserFilter(
        username_prefix=None if prefix is None else normalise_prefix(prefix),
        role=role,
        is_disabled=_read_boolean("disabled", query),
        has_password=_read_boolean("has_password", query),
    )


def _read_boolean(name: str, query: dict[str, str]) -> bool | None:
    if name not in query:
        return None
    if query[name] not in _BOOLEANS:
        raise InvalidRequestError.of_field(name, "must be true or false")
    return _BOOLEANS[query[name]]


def _read_order(text: str) -> UserOrder:
    try:
        return UserOrder(text)
    except ValueError:
        raise InvalidRequestError.of_field(
            "sort", f"must be one of {', '.join(UserOrder)}"
        ) from None
