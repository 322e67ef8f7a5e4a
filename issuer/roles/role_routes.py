"""`/roles`, for administrators."""

from typing import Annotated, Any, Final, Literal

from fastapi import APIRouter, Depends, Path, Response
from pydantic import BaseModel, ConfigDict, Field, field_validator

from issuer.feed.change_requests import (
    MAY_MATCH,
    MUST_MATCH,
    REVOKED_ANSWER,
    AdminChange,
    FollowersAnswer,
)
from issuer.http.authorization.authentication import Administrator
from issuer.http.dependencies import PartOf
from issuer.http.preconditions import ETAG_HEADER, tag_answer
from issuer.http.strict_json import StrictRoute
from issuer.roles.role_limits import (
    MAX_DESCRIPTION_CHARS,
    MAX_SCOPES_PER_ROLE,
    ROLE_NAME,
)
from issuer.roles.roles import Roles, RoleView
from issuer.sessions.answers import StrictBody
from shared.claims import is_plain_text

_ROLE: Final[dict[str, Any]] = {
    "name": "clerk",
    "scopes": ["orders:read", "orders:write"],
    "description": "Takes orders.",
    "created_at": 1_795_353_633,
}
_SHOWN: Final[dict[int | str, dict[str, Any]]] = {
    200: {"description": "The role.", "headers": ETAG_HEADER}
}
_MADE: Final[dict[int | str, dict[str, Any]]] = {
    201: {"description": "The new role.", "headers": ETAG_HEADER}
}
RoleName = Annotated[str, Path(pattern=ROLE_NAME)]


class RoleBody(StrictBody):
    """What a role shall grant; `scopes` are words of RFC 6749, section 3.3."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [{k: _ROLE[k] for k in ("scopes", "description")}]
        }
    )

    scopes: list[Annotated[str, Field(max_length=128)]] = Field(
        max_length=MAX_SCOPES_PER_ROLE
    )
    description: str = Field(default="", max_length=MAX_DESCRIPTION_CHARS)

    @field_validator("description")
    @classmethod
    def _check_description(cls, value: str) -> str:
        if not is_plain_text(value):
            raise ValueError("must not hold unseen characters")
        return value


class NewRoleBody(RoleBody):
    """A role to make."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [{k: v for k, v in _ROLE.items() if k != "created_at"}]
        }
    )

    name: str = Field(pattern=ROLE_NAME)


class RoleAnswer(BaseModel):
    """A role; `created_at` in Unix seconds."""

    model_config = ConfigDict(json_schema_extra={"examples": [_ROLE]})

    name: str
    scopes: list[str]
    description: str
    created_at: int

    @classmethod
    def of(cls, role: RoleView) -> "RoleAnswer":
        """Return the answer that shows this role."""
        return cls.model_validate(role, from_attributes=True)


class ChangedRoleAnswer(RoleAnswer):
    """A role after a change.

    When it lost a scope that somebody held, `revoked` is true: the access tokens of its
    holders have ended, and `position`, `confirmed` and `followers` are those of a
    logout's answer.
    """

    revoked: Literal[True] | None = None
    position: int | None = None
    confirmed: bool | None = None
    followers: FollowersAnswer | None = None


class RolesAnswer(BaseModel):
    """Every role, by name."""

    roles: list[RoleAnswer]


router = APIRouter(route_class=StrictRoute, tags=["roles"])
_Roles = Annotated[Roles, Depends(PartOf(Roles))]


@router.post("/roles", status_code=201, summary="Make a role", responses=_MADE)
async def create_role(
    body: NewRoleBody,
    change: AdminChange,
    roles: _Roles,
) -> RoleAnswer:
    """Answer the new role; `Location` names it."""
    role = await roles.create(
        body.name,
        body.scopes,
        body.description,
        actor=change.actor,
        caller=change.caller,
    )
    change.set_location(f"/roles/{role.name}")
    return change.tag(RoleAnswer.of(role))


@router.get("/roles", summary="List roles")
async def list_roles(admin: Administrator, roles: _Roles) -> RolesAnswer:
    """Answer every role."""
    found = await roles.list_all()
    return RolesAnswer(roles=[RoleAnswer.of(role) for role in found])


@router.get("/roles/{name}", summary="Show a role", responses=_SHOWN)
async def show_role(
    name: RoleName, response: Response, admin: Administrator, roles: _Roles
) -> RoleAnswer:
    """Answer the role."""
    return tag_answer(response, RoleAnswer.of(await roles.get(name)))


@router.put(
    "/roles/{name}",
    summary="Change a role",
    responses=_SHOWN,
    openapi_extra=MUST_MATCH,
    **REVOKED_ANSWER,
)
async def replace_role(
    name: RoleName,
    body: RoleBody,
    change: AdminChange,
    roles: _Roles,
) -> ChangedRoleAnswer:
    """Give an existing role other scopes.

    What it gains is granted by the next login. When it loses a scope, the access
    tokens of its holders end at once; sessions go on without that scope.
    """
    role, position = await roles.replace(
        name,
        body.scopes,
        body.description,
        change.must_match(RoleAnswer.of),
        actor=change.actor,
        caller=change.caller,
    )
    answer = change.tag(RoleAnswer.of(role))
    ended = await change.answer_if_revoked(position)
    return ChangedRoleAnswer(**answer.model_dump(), **ended)


@router.delete(
    "/roles/{name}",
    status_code=204,
    summary="Delete a role that nobody holds",
    openapi_extra=MAY_MATCH,
)
async def delete_role(name: RoleName, change: AdminChange, roles: _Roles) -> None:
    """Delete the role; 409 while somebody holds it."""
    await roles.delete(
        name,
        change.may_match(RoleAnswer.of),
        actor=change.actor,
        caller=change.caller,
    )
