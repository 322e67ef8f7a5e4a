"""`GET /audit`: what happened, for administrators."""

import re
from typing import Annotated, Any, Final

import orjson
from fastapi import APIRouter, Depends, Request
from pydantic import BaseModel

from issuer.audit.reading import AuditFilter, AuditReader
from issuer.errors import InvalidRequestError
from issuer.http.authorization.authentication import Administrator
from issuer.http.dependencies import PartOf
from issuer.http.strict_json import read_query
from issuer.storage.tables.audit import AuditEvent
from shared.claims import is_plain_text

MAX_PAGE: Final = 500
_DEFAULT_PAGE: Final = 100
_NUMBER: Final = re.compile(r"[0-9]{1,18}")
#: How long each text filter may be: as the columns are.
_TEXTS: Final = {"event": 64, "actor": 256, "subject": 256, "correlation_id": 64}


def _parameter(name: str, description: str, **schema: object) -> dict[str, Any]:
    return {"name": name, "in": "query", "description": description, "schema": schema}


def _time(name: str, description: str) -> dict[str, Any]:
    most = 10**18 - 1
    return _parameter(name, description, type="integer", minimum=0, maximum=most)


def _text(name: str, description: str) -> dict[str, Any]:
    return _parameter(
        name, description, type="string", minLength=1, maxLength=_TEXTS[name]
    )


_PARAMETERS: Final = [
    _text("event", "The event's word, such as `session.ended`."),
    _text("actor", "Who did it: a sub, a client_id, or `system`."),
    _text("subject", "Whom or what it concerns."),
    _text("correlation_id", "Of the request that did it."),
    _time("since", "Then or later, Unix seconds."),
    _time("until", "Before then, Unix seconds."),
    _parameter("cursor", "`next_cursor` of the page before.", type="string"),
    _parameter(
        "limit",
        "Events per page.",
        type="integer",
        minimum=1,
        maximum=MAX_PAGE,
        default=_DEFAULT_PAGE,
    ),
]


class AuditEventAnswer(BaseModel):
    """One event; `at` is Unix seconds."""

    id: int
    at: int
    event: str
    actor: str
    subject: str
    address: str
    correlation_id: str
    facts: dict[str, str | int]

    @classmethod
    def of(cls, row: AuditEvent) -> "AuditEventAnswer":
        """Return the answer that tells this event."""
        return cls(
            id=row.id,
            at=row.at,
            event=row.event,
            actor=row.actor,
            subject=row.subject,
            address=row.address,
            correlation_id=row.correlation_id,
            facts=orjson.loads(row.facts),
        )


class AuditAnswer(BaseModel):
    """A page of events, newest first; without `next_cursor` it is the last."""

    events: list[AuditEventAnswer]
    next_cursor: str | None


router = APIRouter(tags=["audit"])
_AuditReader = Annotated[AuditReader, Depends(PartOf(AuditReader))]


@router.get(
    "/audit", summary="What happened", openapi_extra={"parameters": _PARAMETERS}
)
async def list_events(
    request: Request, _admin: Administrator, reader: _AuditReader
) -> AuditAnswer:
    """Answer one page, newest first; all given conditions apply."""
    query = read_query(request, [each["name"] for each in _PARAMETERS])
    limit = _read_number(query, "limit")
    if limit is not None and not 1 <= limit <= MAX_PAGE:
        raise InvalidRequestError.of_field("limit", f"must be 1 to {MAX_PAGE}")
    page = await reader.read_page(
        AuditFilter(
            **{name: _read_text(query, name) for name in _TEXTS},
            since=_read_number(query, "since"),
            until=_read_number(query, "until"),
        ),
        limit or _DEFAULT_PAGE,
        query.get("cursor"),
    )
    return AuditAnswer(
        events=[AuditEventAnswer.of(row) for row in page.rows],
        next_cursor=page.next_cursor,
    )


def _read_text(query: dict[str, str], name: str) -> str | None:
    value = query.get(name)
    if value is None:
        return None
    if not 1 <= len(value) <= _TEXTS[name] or not is_plain_text(value):
        raise InvalidRequestError.of_field(
            name, f"must have 1 to {_TEXTS[name]} characters, none unseen"
        )
    return value


def _read_number(query: dict[str, str], name: str) -> int | None:
    value = query.get(name)
    if value is None:
        return None
    if not _NUMBER.fullmatch(value):
        raise InvalidRequestError.of_field(name, "must be a whole number from 0")
    return int(value)
