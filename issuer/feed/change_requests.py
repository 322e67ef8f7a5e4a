"""A request for a change: the state it expects, who asks, and the answer.

`If-Match` is compared under the lock of the changed row, so that no change overwrites
another one unseen. What the change revoked is in the answer.
"""

from collections.abc import Callable
from typing import Annotated, Any, Final, TypeVar

from fastapi import Depends, Request, Response
from pydantic import BaseModel

from issuer.acts import Caller
from issuer.feed.feed import Position
from issuer.feed.revoked_answers import RevokedAnswer, answer_revoked
from issuer.http.authorization.authentication import Administrator
from issuer.http.callers import caller_of
from issuer.http.locations import set_location
from issuer.http.preconditions import (
    build_etag,
    if_match_parameter,
    read_if_match,
    read_optional_if_match,
    tag_answer,
)

_State = TypeVar("_State")
_Answer = TypeVar("_Answer", bound=BaseModel)

#: Declares a required or an optional `If-Match`, for `openapi_extra`.
MUST_MATCH: Final[dict[str, Any]] = {
    "parameters": [if_match_parameter(is_required=True)]
}
MAY_MATCH: Final[dict[str, Any]] = {
    "parameters": [if_match_parameter(is_required=False)]
}


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
