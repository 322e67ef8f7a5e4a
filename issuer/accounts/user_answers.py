"""Bodies and answers of `/users`."""

from typing import Annotated, Any, Final, Literal, TypeVar

from pydantic import BaseModel, ConfigDict, Field, field_validator

from issuer.accounts.users import UserView
from issuer.feed.change_requests import FollowersAnswer
from issuer.roles.role_limits import MAX_ROLES_PER_USER
from issuer.sessions.answers import StrictBody

_USER: Final[dict[str, Any]] = {
    "id": "0b51f6a5-7c0c-4a0f-8f3e-5b9e4f6d2a11",
    "username": "alice",
    "roles": ["clerk"],
    "is_disabled": False,
    "has_password": True,
    "created_at": 1_795_353_633,
    "updated_at": 1_795_353_633,
    "password_changed_at": 1_795_353_633,
    "version": 1,
}

_V = TypeVar("_V")
RoleNames = Annotated[
    list[Annotated[str, Field(min_length=1, max_length=64)]],
    Field(max_length=MAX_ROLES_PER_USER),
]


def _example(value: dict[str, Any]) -> ConfigDict:
    return ConfigDict(json_schema_extra={"examples": [value]})


def _require_value(value: _V | None) -> _V:
    # Omitted members are not validated, so this is an explicit null.
    if value is None:
        raise ValueError("must not be null")
    return value


class NewUserBody(StrictBody):
    """An account to make; `roles` names roles that exist.

    Without `password` the user cannot log in until a reset link has set one.
    """

    model_config = _example(
        {
            "username": "alice",
            "password": "correct horse battery staple",
            "roles": ["clerk"],
        }
    )

    username: str
    password: str | None = None
    roles: RoleNames = Field(default=[])


class UserChangeBody(StrictBody):
    """A change of an account; omitted members do not change.

    `roles` has all roles after the change.
    """

    model_config = _example({"roles": ["clerk", "auditor"]})

    username: str | None = None
    roles: RoleNames | None = None

    _refuse_null = field_validator("username", "roles")(_require_value)


class OwnChangeBody(StrictBody):
    """A change of the caller's own account, with the password as proof."""

    model_config = _example(
        {"username": "alice.smith", "password": "correct horse battery staple"}
    )

    username: str | None = None
    password: str

    _refuse_null = field_validator("username")(_require_value)


class UserAnswer(BaseModel):
    """An account; times are Unix seconds."""

    model_config = _example(_USER)

    id: str
    username: str
    roles: list[str]
    is_disabled: bool
    has_password: bool
    created_at: int
    updated_at: int
    password_changed_at: int
    version: int

    @classmethod
    def of(cls, user: UserView) -> "UserAnswer":
        """Return the answer for this account."""
        return cls.model_validate(user, from_attributes=True)


class ChangedUserAnswer(UserAnswer):
    """An account after a change.

    If it ended access tokens, `revoked` is true and `position` is its place in the
    feed; `confirmed` and `followers` are as in a logout's answer.
    """

    model_config = _example({**_USER, "version": 2, "revoked": True, "position": 4711})

    revoked: Literal[True] | None = None
    position: int | None = None
    confirmed: bool | None = None
    followers: FollowersAnswer | None = None


class UsersAnswer(BaseModel):
    """One page of accounts; `next_cursor` is for the next page, null after the last."""

    model_config = _example({"users": [_USER], "next_cursor": None})

    users: list[UserAnswer]
    next_cursor: str | None
