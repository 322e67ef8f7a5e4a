"""`/users/me/keys`: a user's personal keys; `/users/{user_id}/keys` for
administrators.
"""

from typing import Annotated, Any, Final
from uuid import UUID

from fastapi import APIRouter, Depends, Request, Response
from pydantic import BaseModel, ConfigDict, Field

from issuer.feed.change_requests import (
    REVOKED_ANSWER,
    AdminChange,
    RevokedAnswer,
    answer_revoked,
)
from issuer.http.authorization.authentication import Administrator, Authenticated
from issuer.http.callers import caller_of
from issuer.http.dependencies import PartOf
from issuer.http.locations import set_location
from issuer.http.strict_json import StrictRoute
from issuer.personal_keys.personal_keys import (
    KeyWish,
    OwnerProof,
    PersonalKeys,
    PersonalKeyView,
)
from issuer.sessions.answers import StrictBody, forbid_storing
from issuer.sessions.logout import require_person

_WISH: Final[dict[str, Any]] = {
    "name": "nightly export",
    "scopes": ["orders:read"],
    "expires_in": 7_776_000,
    "password": "correct horse battery",
}
_WISH_WITH_CODE: Final[dict[str, Any]] = {**_WISH, "code": "492039"}
#: FastAPI merges this into the operation.
_GUESSES: Final[dict[int | str, dict[str, Any]]] = {
    429: {"description": "Wrong passwords and codes wait as at a login."}
}
_SHOWN: Final[dict[str, Any]] = {
    "id": "3f0a6e0e-6a2b-4b57-9a0a-5f4f1d7a2c11",
    "name": "nightly export",
    "scopes": ["orders:read"],
    "created_at": 1795396833,
    "expires_at": 1803172833,
    "last_used_at": None,
}


class NewKeyBody(StrictBody):
    """A key to make; `expires_in` is in seconds.

    `password` is the user's; `code`, six digits of the app or a recovery code, is
    needed where a second factor is enrolled, and only there. `gatehouse:admin` is among
    the scopes only where the issuer's settings allow it.
    """

    model_config = ConfigDict(json_schema_extra={"examples": [_WISH, _WISH_WITH_CODE]})

    name: str
    scopes: list[Annotated[str, Field(min_length=1, max_length=128)]] = Field(
        max_length=64
    )
    expires_in: int
    password: str
    code: str | None = None


class KeyAnswer(BaseModel):
    """A key without itself; times are Unix seconds, `last_used_at` is to the hour."""

    model_config = ConfigDict(json_schema_extra={"example": _SHOWN})

    id: str
    name: str
    scopes: list[str]
    created_at: int
    expires_at: int
    last_used_at: int | None

    @classmethod
    def of(cls, view: PersonalKeyView) -> "KeyAnswer":
        """Return the answer that shows this key."""
        return cls.model_validate(view, from_attributes=True)


class NewKeyAnswer(KeyAnswer):
    """A key just made, which is shown this once."""

    model_config = ConfigDict(
        json_schema_extra={
            "example": {**_SHOWN, "key": "ghk_0000000000000000000000000000000aBcDe"}
        }
    )

    key: str


class KeysAnswer(BaseModel):
    """A user's keys that are not revoked, newest first."""

    keys: list[KeyAnswer]


router = APIRouter(route_class=StrictRoute, tags=["personal keys"])
_PersonalKeys = Annotated[PersonalKeys, Depends(PartOf(PersonalKeys))]


@router.post(
    "/users/me/keys",
    status_code=201,
    summary="Make a personal key",
    responses=_GUESSES,
)
async def create_key(
    body: NewKeyBody,
    request: Request,
    response: Response,
    principal: Authenticated,
    personal_keys: _PersonalKeys,
) -> NewKeyAnswer:
    """Answer the new key, which is shown this once.

    A script exchanges it at `/oauth2/token` for an access token. It lives longer than
    a session, so it needs the password, and the second factor where there is one.
    """
    wish = KeyWish(body.name, body.scopes, body.expires_in)
    proof = OwnerProof(body.password, body.code)
    made = await personal_keys.create(principal, wish, proof, caller_of(request))
    set_location(request, response, f"/users/me/keys/{made.view.id}")
    forbid_storing(response)
    return NewKeyAnswer(**KeyAnswer.of(made.view).model_dump(), key=made.key)


@router.get("/users/me/keys", summary="List one's own personal keys")
async def list_own_keys(
    principal: Authenticated, personal_keys: _PersonalKeys
) -> KeysAnswer:
    """Answer the user's keys, none of them itself."""
    require_person(principal)
    return await _list_of(personal_keys, principal.subject)


@router.delete(
    "/users/me/keys/{key_id}",
    summary="Revoke one of one's own personal keys",
    **REVOKED_ANSWER,
)
async def revoke_own_key(
    key_id: UUID,
    request: Request,
    response: Response,
    principal: Authenticated,
    personal_keys: _PersonalKeys,
) -> RevokedAnswer:
    """Revoke the key and every token it was exchanged for."""
    require_person(principal)
    position = await personal_keys.revoke(
        principal.subject,
        str(key_id),
        actor=principal.subject,
        caller=caller_of(request),
    )
    return await answer_revoked(request, response, position)


@router.get("/users/{user_id}/keys", summary="List a user's personal keys")
async def list_keys(
    user_id: UUID, admin: Administrator, personal_keys: _PersonalKeys
) -> KeysAnswer:
    """Answer the user's keys, none of them itself."""
    return await _list_of(personal_keys, str(user_id))


@router.delete(
    "/users/{user_id}/keys/{key_id}",
    summary="Revoke a user's personal key",
    **REVOKED_ANSWER,
)
async def revoke_key(
    user_id: UUID,
    key_id: UUID,
    change: AdminChange,
    personal_keys: _PersonalKeys,
) -> RevokedAnswer:
    """Revoke the key and every token it was exchanged for."""
    position = await personal_keys.revoke(
        str(user_id), str(key_id), actor=change.actor, caller=change.caller
    )
    return await change.answer_revoked(position)


async def _list_of(personal_keys: PersonalKeys, user_id: str) -> KeysAnswer:
    views = await personal_keys.list_of(user_id)
    return KeysAnswer(keys=[KeyAnswer.of(view) for view in views])
