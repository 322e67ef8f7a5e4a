"""`GET /revocations` and `GET /revocations/snapshot`, for verifiers.

The form is in docs/design.md, "The revocation feed".
"""

import asyncio
import re
from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Any, Final

from fastapi import APIRouter, Request, Response
from fastapi.responses import StreamingResponse

from issuer.errors import UnauthenticatedError
from issuer.feed.feed import RevocationFeed
from issuer.feed.feed_credential import FeedCredential
from issuer.feed.follower_headers import (
    is_uuid,
    read_applied,
    read_departure,
    read_introduction,
    refuse,
)
from issuer.feed.followers import NOTHING_YET, Report
from issuer.feed.leases import Leases
from issuer.feed.pages import FeedPages, PageRequest
from issuer.feed.watch import FeedWatch
from issuer.http.dependencies import PartOf
from issuer.http.strict_json import PlainRoute, read_query
from issuer.openapi.security import BY_FEED_TOKEN
from shared.feed import (
    FOLLOWER_APPLIED_HEADER,
    FOLLOWER_HEADER,
    FOLLOWER_ON_STALE_HEADER,
    FOLLOWER_REPLACES_HEADER,
    FOLLOWER_STALENESS_HEADER,
    GOODBYE_PATH,
    LINES_TYPE,
    MAX_PAGE_ENTRIES,
    MAX_REPLACED_FOLLOWERS,
    MAX_WAIT,
)

_NUMBER: Final = re.compile(r"[0-9]{1,18}")
_BEARER: Final = re.compile(r"[Bb][Ee][Aa][Rr][Ee][Rr] ([\x21-\x7e]+)")
#: Bytes of a snapshot that are sent at a time.
_PIECE: Final = 16_384
_PARAMETERS: Final = ("epoch", "after", "wait", "limit")
_EXAMPLE: Final[dict[str, Any]] = {
    "v": 1,
    "iss": "https://issuer.example",
    "epoch": "6f0e3c5a-2f5b-4a51-9c1d-0d4b3c8f7a10",
    "after": 10,
    "to": 12,
    "head": 12,
    "as_of": 1795396833123,
    "max_ttl": 600,
    "entries": [
        [11, "sid", "0d9c2f6e-6a0e-4d6b-8a57-2f0f3f1b9a77", 0, 1795397433],
        [12, "user", "7b0a8f0c-5c8e-4a39-9a55-6f3b8f3f1c21", 4, 1795397433],
    ],
}
_RESPONSES: Final[dict[int | str, dict[str, Any]]] = {
    200: {"content": {"application/json": {"example": _EXAMPLE}}}
}


def _describe_parameters() -> list[dict[str, Any]]:
    whole = {"type": "integer", "minimum": 0}
    return [
        {
            "name": "epoch",
            "in": "query",
            "required": True,
            "description": "The epoch of the last page.",
            "schema": {"type": "string", "format": "uuid"},
        },
        {
            "name": "after",
            "in": "query",
            "required": True,
            "description": "Everything up to this position has been applied, unless "
            f"`{FOLLOWER_APPLIED_HEADER}` says less.",
            "schema": whole,
        },
        {
            "name": "wait",
            "in": "query",
            "description": f"Seconds to hold the request, {MAX_WAIT} at most.",
            "schema": {**whole, "default": 0},
        },
        {
            "name": "limit",
            "in": "query",
            "description": "Entries in the page at most.",
            "schema": {
                **whole,
                "minimum": 1,
                "maximum": MAX_PAGE_ENTRIES,
                "default": MAX_PAGE_ENTRIES,
            },
        },
    ]


def _describe_goodbye() -> list[dict[str, Any]]:
    described = {
        FOLLOWER_HEADER: "Required: the UUID under which this very process has followed.",
        FOLLOWER_REPLACES_HEADER: "As in its requests for the feed.",
    }
    return _as_parameters(described)


def _describe_headers() -> list[dict[str, Any]]:
    described = {
        FOLLOWER_HEADER: "The verifier process's own UUID. Without it the answer is the "
        "same, and no revocation waits for the reader.",
        FOLLOWER_STALENESS_HEADER: "Required with the former: seconds after its last "
        "complete answer until it answers 503; ISSUER_MAX_FOLLOWER_STALENESS at most.",
        FOLLOWER_ON_STALE_HEADER: "`allow` when a policy of it goes on answering then.",
        FOLLOWER_REPLACES_HEADER: "UUIDs of ended processes whose disk copy it has taken "
        f"over, {MAX_REPLACED_FOLLOWERS} at most, with commas between.",
    }
    return _as_parameters(described)


def _describe_applied() -> list[dict[str, Any]]:
    described = {
        FOLLOWER_APPLIED_HEADER: "The position up to which the verifier has applied "
        "everything, when that is less than `after`. The answer repeats it."
    }
    return _as_parameters(described)


def _as_parameters(described: dict[str, str]) -> list[dict[str, Any]]:
    return [
        {
            "name": name,
            "in": "header",
            "description": text,
            "schema": {"type": "string"},
        }
        for name, text in described.items()
    ]


@dataclass(frozen=True, slots=True)
class Following:
    """What the routes that verifiers follow work with.

    Attributes:
        feed: the snapshot is read from it.
        pages: encoded pages of it.
        watch: holds requests until there is news.
        leases: hold what is promised about each follower.
        credential: what a verifier shows as Bearer; no access token opens these (R23).
        max_staleness: the longest staleness a follower may claim, seconds.
    """

    feed: RevocationFeed
    pages: FeedPages
    watch: FeedWatch
    leases: Leases
    credential: FeedCredential
    max_staleness: int


router = APIRouter(route_class=PlainRoute, tags=["revocation feed"])
_FOLLOWING: Final = PartOf(Following)


@router.get(
    "/revocations",
    summary="Revocations after a position",
    responses=_RESPONSES | {409: {"description": "Another epoch."}},
    openapi_extra=BY_FEED_TOKEN
    | {
        "parameters": [
            *_describe_parameters(),
            *_describe_headers(),
            *_describe_applied(),
        ]
    },
)
async def follow(request: Request) -> Response:
    """Return a page of the feed, held for `wait` seconds while there is no news."""
    following = _FOLLOWING.find(request)
    _authorize(request, following.credential)
    introduction = read_introduction(request.headers, following.max_staleness)
    query = read_query(request, _PARAMETERS)
    wanted = _read_page_request(query)
    wait = min(_read_number(query, "wait", 0), MAX_WAIT)
    applied = read_applied(request.headers, wanted.after)
    with following.watch.waiting(wanted.epoch, wanted.after) as news:
        if introduction is not None:
            follower, replaces = introduction
            report = Report(follower, wanted.epoch, applied, replaces)
            # Before any page is read for it: docs/revocation.md.
            await following.leases.hold(report)
        page = await following.pages.read(wanted)
        if wait and page.is_empty:
            await _wait_for_news(request, news, wait)
            page = await following.pages.read(wanted)
    return Response(
        page.body,
        media_type="application/json",
        headers={FOLLOWER_APPLIED_HEADER: str(applied)},
    )


@router.get(
    "/revocations/snapshot",
    summary="All live revocations",
    responses=_RESPONSES,
    openapi_extra=BY_FEED_TOKEN | {"parameters": _describe_headers()},
)
async def take_snapshot(request: Request) -> Response:
    """Return all live entries as one page, or as lines if asked for, streamed."""
    following = _FOLLOWING.find(request)
    _authorize(request, following.credential)
    introduction = read_introduction(request.headers, following.max_staleness)
    read_query(request, ())
    if introduction is not None:
        # It has applied nothing yet, so it replaces no other process yet.
        report = Report(introduction.follower, None, NOTHING_YET)
        await following.leases.hold(report)
    if _takes_lines(request):
        lines = await following.feed.snapshot_lines()
        return StreamingResponse(_cut(lines), media_type=LINES_TYPE)
    page = await following.feed.snapshot()
    return StreamingResponse(_cut(page), media_type="application/json")


@router.post(
    f"/revocations{GOODBYE_PATH}",
    summary="End one's own lease",
    status_code=204,
    openapi_extra=BY_FEED_TOKEN | {"parameters": _describe_goodbye()},
)
async def take_leave(request: Request) -> Response:
    """End the lease of a verifier process that will never answer 200 again.

    Safe to repeat. No revocation waits for that process from then on.
    """
    following = _FOLLOWING.find(request)
    _authorize(request, following.credential)
    departure = read_departure(request.headers)
    read_query(request, ())
    await following.leases.leave(departure)
    return Response(status_code=204)


async def _cut(pieces: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
    """Give the same bytes in small pieces.

    A piece waits whole for its reader: five slow verifiers with a batch each are beyond
    what may wait on the port, and are cut off (R44).
    """
    async for piece in pieces:
        for at in range(0, len(piece), _PIECE):
            yield piece[at : at + _PIECE]


def _takes_lines(request: Request) -> bool:
    """Whether lines are named at all: who names them prefers them (decision 0004)."""
    accept = ",".join(request.headers.getlist("Accept"))
    named = (part.partition(";")[0].strip().lower() for part in accept.split(","))
    return LINES_TYPE in named


async def _wait_for_news(request: Request, news: asyncio.Event, wait: int) -> None:
    """Return on news, after `wait` seconds, or when the client has gone."""
    tasks = {
        asyncio.create_task(news.wait()),
        asyncio.create_task(_wait_for_disconnect(request)),
    }
    try:
        await asyncio.wait(tasks, timeout=wait, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


async def _wait_for_disconnect(request: Request) -> None:
    while (await request.receive())["type"] != "http.disconnect":
        pass


def _authorize(request: Request, credential: FeedCredential) -> None:
    given = request.headers.getlist("Authorization")
    if not given:
        raise UnauthenticatedError("The feed needs its credential.", is_missing=True)
    match = _BEARER.fullmatch(given[0]) if len(given) == 1 else None
    if match is None or not credential.accepts(match[1].encode()):
        raise UnauthenticatedError("The feed credential is not right.")


def _read_page_request(query: dict[str, str]) -> PageRequest:
    epoch = query.get("epoch", "")
    if not is_uuid(epoch):
        raise refuse("epoch", "is required, a UUID")
    after = _read_number(query, "after")
    limit = _read_number(query, "limit", MAX_PAGE_ENTRIES)
    if limit == 0:
        raise refuse("limit", "must be at least 1")
    return PageRequest(epoch, after, min(limit, MAX_PAGE_ENTRIES))


def _read_number(query: dict[str, str], name: str, default: int | None = None) -> int:
    text = query.get(name)
    if text is None and default is not None:
        return default
    if text is None or not _NUMBER.fullmatch(text):
        raise refuse(name, "must be a whole number from 0")
    return int(text)
