"""`/users`: accounts changed, disabled, enabled and deleted."""

from typing import Annotated, Any, Final
from uuid import UUID

from fastapi import APIRouter, Depends, Request, Response

from issuer.accounts.user_answers import (
    ChangedUserAnswer,
    OwnChangeBody,
    UserAnswer,
    UserChangeBody,
)
from issuer.accounts.user_changes import Changed, ExpectUser, UserChange, UserChanges
from issuer.credentials.password_proof import PasswordProof
from issuer.feed.revoked_answers import REVOKED_ANSWER, RevokedAnswer, answer_revoked
from issuer.http.authorization.authentication import Administrator, Authenticated
from issuer.http.callers import caller_of
from issuer.http.dependencies import PartOf
from issuer.http.preconditions import (
    ETAG_HEADER,
    IfMatch,
    build_etag,
    if_match_parameter,
    read_if_match,
    read_optional_if_match,
)
from issuer.http.strict_json import StrictRoute
from issuer.sessions.logout import require_person

_CHANGED: Final[dict[int | str, dict[str, Any]]] = {
    200: {"description": "The account as it is now.", "headers": ETAG_HEADER}
}
_WITH_TAG: Final = {"parameters": [if_match_parameter(is_required=True)]}
_WITH_ANY_TAG: Final = {"parameters": [if_match_parameter(is_required=False)]}


router = APIRouter(route_class=StrictRoute, tags=["users"])
_UserChanges = Annotated[UserChanges, Depends(PartOf(UserChanges))]
_PasswordProof = Annotated[PasswordProof, Depends(PartOf(PasswordProof))]


# Before `/users/{user_id}`: `me` is no id.
@router.patch(
    "/users/me",
    summary="Change one's own account",
    responses=_CHANGED,
    openapi_extra=_WITH_TAG,
    **REVOKED_ANSWER,
)
async def change_me(
    body: OwnChangeBody,
    request: Request,
    response: Response,
    principal: Authenticated,
    changes: _UserChanges,
    proof: _PasswordProof,
) -> ChangedUserAnswer:
    """Rename the user. That ends the access tokens: refresh for one with the name.

    It needs the password: a stolen access token must not take the account's name.
    """
    require_person(principal)
    expect, caller = _expect(read_if_match(request)), caller_of(request)
    changed = await changes.change(
        principal.subject,
        UserChange(username=body.username),
        expect,
        actor=principal.subject,
        caller=caller,
        proved=await proof.prove(principal, body.password, caller),
    )
    return await _answer(request, response, changed)


@router.patch(
    "/users/{user_id}",
    summary="Change an account",
    responses=_CHANGED,
    openapi_extra=_WITH_TAG,
    **REVOKED_ANSWER,
)
async def change_user(
    user_id: UUID,
    body: UserChangeBody,
    request: Request,
    response: Response,
    admin: Administrator,
    changes: _UserChanges,
) -> ChangedUserAnswer:
    """Rename the user, or give other roles.

    A new name and a lost role end the access tokens there are; sessions go on, and
    the next refresh tells what is so now.
    """
    changed = await changes.change(
        str(user_id),
        UserChange(username=body.username, roles=body.roles),
        _expect(read_if_match(request)),
        actor=admin.subject,
        caller=caller_of(request),
    )
    return await _answer(request, response, changed)


@router.post(
    "/users/{user_id}/disable",
    summary="Disable an account",
    responses=_CHANGED,
    openapi_extra=_WITH_ANY_TAG,
    **REVOKED_ANSWER,
)
async def disable_user(
    user_id: UUID,
    request: Request,
    response: Response,
    admin: Administrator,
    changes: _UserChanges,
) -> ChangedUserAnswer:
    """Refuse the user's logins; end every session and personal key."""
    changed = await changes.disable(
        str(user_id),
        _expect(read_optional_if_match(request)),
        actor=admin.subject,
        caller=caller_of(request),
    )
    return await _answer(request, response, changed)


@router.post(
    "/users/{user_id}/enable",
    summary="Enable an account",
    responses=_CHANGED,
    openapi_extra=_WITH_ANY_TAG,
    **REVOKED_ANSWER,
)
async def enable_user(
    user_id: UUID,
    request: Request,
    response: Response,
    admin: Administrator,
    changes: _UserChanges,
) -> ChangedUserAnswer:
    """Let a disabled user log in again; what was ended stays ended."""
    changed = await changes.enable(
        str(user_id),
        _expect(read_optional_if_match(request)),
        actor=admin.subject,
        caller=caller_of(request),
    )
    return await _answer(request, response, changed)


@router.delete(
    "/users/{user_id}",
    summary="Delete an account",
    openapi_extra=_WITH_ANY_TAG,
    **REVOKED_ANSWER,
)
async def delete_user(
    user_id: UUID,
    request: Request,
    response: Response,
    admin: Administrator,
    changes: _UserChanges,
) -> RevokedAnswer:
    """Delete the account with its sessions; the audit keeps what was recorded."""
    position = await changes.delete(
        str(user_id),
        _expect(read_optional_if_match(request)),
        actor=admin.subject,
        caller=caller_of(request),
    )
    return await answer_revoked(request, response, position)


def _expect(if_match: IfMatch) -> ExpectUser:
    return lambda user: if_match.require(build_etag(UserAnswer.of(user)))


async def _answer(
    request: Request, response: Response, changed: Changed
) -> ChangedUserAnswer:
    user = UserAnswer.of(changed.user)
    response.headers["ETag"] = build_etag(user)
    ended = None
    if changed.position is not None:
        ended = await answer_revoked(request, response, changed.position)
    return ChangedUserAnswer.after(user, ended)
