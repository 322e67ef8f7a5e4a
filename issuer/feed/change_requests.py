"""A request for a change: the state it expects, who asks, and the answer.

`If-Match` is compared under the lock of the changed row, so that no change overwrites
another one unseen. What the change revoked is in
the answer, as in that of every other call that revokes.
"""

from collections.abc import Callable
from typing import Annotated, Any, Final, Literal, TypedDict, TypeVar

from fastapi import Depends, Request, Response
from pydantic import BaseModel

from issuer.acts import Caller
from issuer.feed.confirmation import Confirmation
from issuer.feed.feed import Position
from issuer.http.authorization.authentication import Administrator
from issuer.http.callers import caller_of
from issuer.http.dependencies import PartOf
from issuer.http.locations import set_location
from issuer.http.preconditions import (
    build_etag,
    if_match_parameter,
    read_if_match,
    read_optional_if_match,
    tag_answer,
)
from issuer.http.preferences import read_preferred_wait

_State = TypeVar("_State")
_Answer = TypeVar("_Answer", bound=BaseModel)

#: Declares a required or an optional `If-Match`, for `openapi_extra`.
MUST_MATCH: Final[dict[str, Any]] = {
    "parameters": [if_match_parameter(is_required=True)]
}
MAY_MATCH: Final[dict[str, Any]] = {
    "parameters": [if_match_parameter(is_required=False)]
}


class FollowersAnswer(BaseModel):
    """The verifiers that have applied it, have not, and have opted out."""

    confirmed: int
    pending: list[str]
    exempt: list[str]


class RevokedAnswer(BaseModel):
    """Something was revoked; verifiers at `position` or past it refuse its tokens.

    With `Prefer: wait=S` in the request, `confirmed` tells whether from now on no
    verifier answers 200 for them.
    """

    revoked: Literal[True] = True
    position: int
    confirmed: bool | None = None
    followers: FollowersAnswer | None = None


class AnswerOptions(TypedDict):
    """The declaration of such an answer in a route."""

    response_model_exclude_none: bool


#: Without `Prefer` the answer has no `confirmed` and no `followers`.
REVOKED_ANSWER: AnswerOptions = {"response_model_exclude_none": True}


_CONFIRMATION: Final = PartOf(Confirmation)


async def answer_revoked(
    request: Request, response: Response, position: Position
) -> RevokedAnswer:
    """Return the answer, after waiting when `Prefer: wait=S` asks for it (RFC 7240).

    A route that revokes needs two lines of it::

        @router.delete("/thing", **REVOKED_ANSWER)
        async def end_thing(...) -> RevokedAnswer:
            position = await things.end(...)
            return await answer_revoked(request, response, position)

    Args:
        request: may carry the preference.
        response: gets `Preference-Applied`.
        position: of the revocation, which is committed.
    """
    seconds = read_preferred_wait(request.headers)
    if seconds is None:
        return RevokedAnswer(position=position.seq)
    found = await _CONFIRMATION.find(request).wait(position, seconds)
    response.headers["Preference-Applied"] = f"wait={seconds}"
    followers = FollowersAnswer(
        confirmed=found.confirmed,
        pending=list(found.pending),
        exempt=list(found.exempt),
    )
    return RevokedAnswer(
        position=position.seq, confirmed=found.is_confirmed, followers=followers
    )


class ChangeRequest:
    """A request for a change, and its answer.

    The headers are read when they are used: an invalid body is refused before them.

    Args:
        request: the request.
        response: gets the headers of the answer.
        actor: subject of the access token.

    Attributes:
        actor: subject of the access token.
    """

    def __init__(self, request: Request, response: Response, actor: str) -> None:
        self._request = request
        self._response = response
        self.actor = actor

    @property
    def caller(self) -> Caller:
        """The origin of the request.

        Raises:
            InvalidRequestError: when a trusted proxy names no caller.
        """
        return caller_of(self._request)

    def must_match(
        self, represent: Callable[[_State], BaseModel]
    ) -> Callable[[_State], None]:
        """Return a check of the present state against the required `If-Match`.

        The check raises `PreconditionFailedError` for any other state.

        Args:
            represent: returns the answer that shows a state.

        Raises:
            PreconditionRequiredError: without `If-Match`.
            InvalidRequestError: when it is malformed.
        """
        wanted = read_if_match(self._request)
        return lambda state: wanted.require(build_etag(represent(state)))

    def may_match(
        self, represent: Callable[[_State], BaseModel]
    ) -> Callable[[_State], None]:
        """Return the same check; without `If-Match` it accepts any state.

        Raises:
            InvalidRequestError: when it is malformed.
        """
        wanted = read_optional_if_match(self._request)
        return lambda state: wanted.require(build_etag(represent(state)))

    def set_location(self, path: str) -> None:
        """Set `Location` to the path of what was made."""
        set_location(self._request, self._response, path)

    def tag(self, answer: _Answer) -> _Answer:
        """Return the answer, with its entity tag in `ETag`."""
        return tag_answer(self._response, answer)

    async def answer_revoked(self, position: Position) -> RevokedAnswer:
        """Return the answer about a revocation, see `answer_revoked`."""
        return await answer_revoked(self._request, self._response, position)

    async def answer_if_revoked(self, position: Position | None) -> dict[str, Any]:
        """Return the members of that answer; none if nothing was revoked."""
        if position is None:
            return {}
        return (await self.answer_revoked(position)).model_dump()


async def _read_change(
    request: Request, response: Response, admin: Administrator
) -> ChangeRequest:
    return ChangeRequest(request, response, admin.subject)


#: A change that an administrator asks for.
AdminChange = Annotated[ChangeRequest, Depends(_read_change)]
