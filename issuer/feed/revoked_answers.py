"""The answer of every revoking call, with confirmation when the caller asks for it."""

from typing import Final, Literal, TypedDict

from fastapi import Request, Response
from pydantic import BaseModel

from issuer.feed.confirmation import Confirmation
from issuer.feed.feed import Position
from issuer.http.dependencies import PartOf
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
