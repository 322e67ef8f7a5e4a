"""`POST /revocations/bulk`: many revocations at once, for administrators.

The body may be large, so it is read after the authentication.
"""

from typing import Annotated, Any, Final

from fastapi import APIRouter, Depends, Request, Response
from fastapi.exceptions import RequestValidationError
from pydantic import BaseModel, Field, ValidationError

from issuer.errors import InvalidRequestError
from issuer.feed.change_requests import (
    REVOKED_ANSWER,
    FollowersAnswer,
    RevokedAnswer,
    answer_revoked,
)
from issuer.http.authorization.authentication import Administrator
from issuer.http.callers import caller_of
from issuer.http.dependencies import PartOf
from issuer.http.strict_json import read_json
from issuer.revoking.bulk import BulkOutcome, BulkRevocation, BulkRun, collect
from issuer.revoking.bulk_filter import SessionFilter, read_network
from issuer.revoking.bulk_items import read_item
from issuer.sessions.answers import StrictBody
from shared.claims import MAX_NUMERIC_DATE

PATH: Final = "/revocations/bulk"
_MAX_ITEMS: Final = 100_000
_Seconds = Annotated[int, Field(ge=0, le=MAX_NUMERIC_DATE)]
_Name = Annotated[str, Field(min_length=1, max_length=64)]


class FilterBody(StrictBody):
    """Living sessions and personal keys to which all that is given applies; times are
    Unix seconds.
    """

    role: _Name | None = None
    client_id: _Name | None = None
    started_before: _Seconds | None = None
    started_since: _Seconds | None = None
    address: _Name | None = None

    def to_filter(self) -> SessionFilter:
        """Return the filter.

        Raises:
            InvalidRequestError: for a bad network, or without any condition.
        """
        return SessionFilter(
            role=self.role,
            client_id=self.client_id,
            started_before=self.started_before,
            started_since=self.started_since,
            address=None if self.address is None else read_network(self.address),
        )


class BulkBody(StrictBody):
    """Either items, each `{"kind", "key", "exp"?}`, or a filter."""

    items: list[Any] | None = Field(default=None, min_length=1, max_length=_MAX_ITEMS)
    filter: FilterBody | None = None
    dry_run: bool = False


class BulkCounts(BaseModel):
    """What became of the items; with `dry_run`, what would become of them."""

    revoked: int
    already: int
    refused: int


class BulkProblem(BaseModel):
    """An item that was not used: its number from 1, the field, the rule."""

    item: int
    field: str
    rule: str


class BulkAnswer(BaseModel):
    """Verifiers at `position` or past it refuse all that was not refused here.

    `confirmed` and `followers` as for a single revocation; after a dry run `revoked` is
    false and there is no position.
    """

    revoked: bool
    position: int | None = None
    confirmed: bool | None = None
    followers: FollowersAnswer | None = None
    counts: BulkCounts
    problems: list[BulkProblem]

    @classmethod
    def of(cls, outcome: BulkOutcome, answer: RevokedAnswer | None) -> "BulkAnswer":
        """Return the answer with this outcome; a dry run has no `answer`."""
        members = {"revoked": False} if answer is None else answer.model_dump()
        return cls(
            **members,
            counts=BulkCounts(
                revoked=outcome.revoked,
                already=outcome.already,
                refused=len(outcome.refused),
            ),
            problems=[
                BulkProblem(item=row.line, field=row.field, rule=row.rule)
                for row in outcome.refused
            ],
        )


def _describe_body() -> dict[str, Any]:
    schema = BulkBody.model_json_schema(ref_template="#/components/schemas/{model}")
    filter_schema = schema.pop("$defs")["FilterBody"]
    schema["properties"]["filter"] = filter_schema
    content = {"application/json": {"schema": schema}}
    return {"requestBody": {"required": True, "content": content}}


router = APIRouter(tags=["revocation"])
_BulkRevocation = Annotated[BulkRevocation, Depends(PartOf(BulkRevocation))]


@router.post(
    PATH,
    summary="Revoke many at once",
    openapi_extra=_describe_body(),
    **REVOKED_ANSWER,
)
async def revoke_many(
    request: Request, response: Response, admin: Administrator, bulk: _BulkRevocation
) -> BulkAnswer:
    """Answer when all is committed; sent again after an error, it does the rest."""
    body = _read_body(await read_json(request))
    sessions = None if body.filter is None else body.filter.to_filter()
    run = BulkRun(
        source="items" if sessions is None else sessions.describe(),
        actor=admin.subject,
        caller=caller_of(request),
        is_trial=body.dry_run,
    )
    if sessions is not None:
        outcomes = bulk.revoke_matching(sessions, run)
    else:
        items = (read_item(*row) for row in enumerate(body.items or [], 1))
        outcomes = bulk.revoke(items, run)
    outcome = await collect(outcomes)
    if run.is_trial:
        return BulkAnswer.of(outcome, None)
    position = await bulk.confirmable_position(outcome)
    answer = await answer_revoked(request, response, position)
    return BulkAnswer.of(outcome, answer)


def _read_body(data: dict[str, Any]) -> BulkBody:
    try:
        body = BulkBody.model_validate(data)
    except ValidationError as error:
        problems = error.errors(include_input=False, include_url=False)
        raise RequestValidationError(
            [{**problem, "loc": ("body", *problem["loc"])} for problem in problems]
        ) from None
    if (body.items is None) == (body.filter is None):
        rule = "must hold either items or filter"
        raise InvalidRequestError.of_field("body", rule)
    return body
