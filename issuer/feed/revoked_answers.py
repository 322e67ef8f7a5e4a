"""The answer of every revoking call, confirmed when the caller prefers to wait for it."""

from typing import Literal, TypedDict

from fastapi import Request, Response
from pydantic import BaseModel

from issuer.feed.confirmation import Confirmation
from issuer.feed.feed import Position
from issuer.http.preferences import read_preferred_wait


class FollowersAnswer(BaseModel):
    """How many verifiers have applied it, who is awaited, and who opted out."""

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
    """How a route declares such an answer."""

    response_model_exclude_none: bool


#: Without `Prefer` the answer has no `confirmed` and no `followers`.
REVOKED_ANSWER: AnswerOptions = {"response_model_exclude_none": True}


class RevokedAnswers:
    """Makes these answers. A route that revokes needs two lines of it::

        @router.delete("/thing", **REVOKED_ANSWER)
        async def end_thing(...) -> RevokedAnswer:
            position = await things.end(...)
            return await revoked.answer(request, response, position)

    Args:
        confirmation: waits for the verifiers.
    """

    def __init__(self, confirmation: Confirmation) -> None:
        self._confirmation = confirmation

    async def answer(
        self, request: Request, response: Response, position: Position
    ) -> RevokedAnswer:
        """Return the answer, after waiting when `Prefer: wait=S` asks for it (RFC 7240).

        Args:
            request: may carry the preference.
            response: told that it was applied.
            position: of the revocation, which is committed.
        """
        seconds = read_preferred_wait(request.headers)
        if seconds is None:
            return RevokedAnswer(position=position)
        found = await self._confirmation.wait(position, seconds)
        response.headers["Preference-Applied"] = f"wait={seconds}"
        followers = FollowersAnswer(
            confirmed=found.confirmed,
            pending=list(found.pending),
            exempt=list(found.exempt),
        )
        return RevokedAnswer(
            position=position, confirmed=found.is_confirmed, followers=followers
        )
