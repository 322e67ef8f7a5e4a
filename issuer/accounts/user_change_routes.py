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
from issuer.accounts.user_changes import Changed, UserChange, UserChanges
from issuer.credentials.password_proof import PasswordProof
from issuer.feed.change_requests import (
    MAY_MATCH,
    MUST_MATCH,
    REVOKED_ANSWER,
    AdminChange,
    ChangeRequest,
    RevokedAnswer,
)
from issuer.http.authorization.authentication import Authenticated
from issuer.http.dependencies import PartOf
from issuer.http.preconditions import ETAG_HEADER
from issuer.http.strict_json import StrictRoute
from issuer.sessions.logout import require_person

_CHANGED: Final[dict[int | str, dict[str, Any]]] = {
    200: {"description": "The account as it is now.", "headers": ETAG_HEADER}
}


router = APIRouter(route_class=StrictRoute, tags=["users"])
_UserChanges = Annotated[UserChanges, Depends(PartOf(UserChanges))]
_PasswordProof = Annotated[PasswordProof, Depends(PartOf(PasswordProof))]


# Before `/users/{user_id}`: `me` is no id.
@router.patch(
    "/users/me",
    summary="Change one's own account",
    responses=_CHANGED,
    openapi_extra=MUST_MATCH,
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
    change = ChangeRequest(request, response, principal.subject)
    expect, caller = change.must_match(UserAnswer.of), change.caller
    changed = await changes.change(
        principal.subject,
        UserChange(username=body.username),
        expect,
        actor=change.actor,
        caller=caller,
        proved=await proof.prove(principal, body.password, caller),
    )
    return await _answer(change, changed)


@router.patch(
    "/users/{user_id}",
    summary="Change an account",
    responses=_CHANGED,
    openapi_extra=MUST_MATCH,
    **REVOKED_ANSWER,
)
async def change_user(
    user_id: UUID,
    body: UserChangeBody,
    change: AdminChange,
    changes: _UserChanges,
) -> ChangedUserAnswer:
    """Rename the user, or give other roles.

    A new name and a lost role end the access tokens there are; sessions go on, and
    the next refresh tells what is so now.
    """
    changed = await changes.change(
        str(user_id),
        UserChange(username=body.username, roles=body.roles),
        change.must_match(UserAnswer.of),
        actor=change.actor,
        caller=change.caller,
    )
    return await _answer(change, changed)


@router.post(
    "/users/{user_id}/disable",
    summary="Disable an account",
    responses=_CHANGED,
    openapi_extra=MAY_MATCH,
    **REVOKED_ANSWER,
)
async def disable_user(
    user_id: UUID,
    change: AdminChange,
    changes: _UserChanges,
) -> ChangedUserAnswer:
    """Refuse the user's logins; end every session and personal key."""
    changed = await changes.disable(
        str(user_id),
        change.may_match(UserAnswer.of),
        actor=change.actor,
        caller=change.caller,
    )
    return await _answer(change, changed)


@router.post(
    "/users/{user_id}/enable",
    summary="Enable an account",
    responses=_CHANGED,
    openapi_extra=MAY_MATCH,
    **REVOKED_ANSWER,
)
async def enable_user(
    user_id: UUID,
    change: AdminChange,
    changes: _UserChanges,
) -> ChangedUserAnswer:
    """Let a disabled user log in again; what was ended stays ended."""
    changed = await changes.enable(
        str(user_id),
        change.may_match(UserAnswer.of),
        actor=change.actor,
        caller=change.caller,
    )
    return await _answer(change, changed)


@router.delete(
    "/users/{user_id}",
    summary="Delete an account",
    openapi_extra=MAY_MATCH,
    **REVOKED_ANSWER,
)
async def delete_user(
    user_id: UUID,
    change: AdminChange,
    changes: _UserChanges,
) -> RevokedAnswer:
    """Delete the account with its sessions; the audit keeps what was recorded."""
    position = await changes.delete(
        str(user_id),
        change.may_match(UserAnswer.of),
        actor=change.actor,
        caller=change.caller,
    )
    return await change.answer_revoked(position)


async def _answer(change: ChangeRequest, changed: Changed) -> ChangedUserAnswer:
    user = change.tag(UserAnswer.of(changed.user))
    ended = await change.answer_if_revoked(changed.position)
    return ChangedUserAnswer(**user.model_dump(), **ended)
