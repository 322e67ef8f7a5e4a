"""The answer of every revoking call, with confirmation when the caller asks for it."""

from typing import Literal, TypedDict

from fastapi import Request, Response
from pydantic import BaseModel

from issuer.feed.confirmation import Confirmation
from issuer.feed.feed import Position
from issuer.http.preferences import read_preferred_wait


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


class RevokedAnswers:
    """Makes these answers. A revoking route needs two lines::

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
        """Return the answer, after the wait that `Prefer: wait=S` requests (RFC 7240).

        Args:
            request: may have the preference.
            response: gets the header `Preference-Applied`.
            position: of the committed revocation.
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
