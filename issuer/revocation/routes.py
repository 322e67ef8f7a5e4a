"""`GET /revocations` and `GET /revocations/snapshot`, for verifiers (DESIGN.md, 4)."""

import asyncio
import hmac
import re
import uuid
from typing import Any, Final

from fastapi import APIRouter, Request, Response
from fastapi.responses import StreamingResponse

from issuer.errors import FieldProblem, InvalidRequestError, UnauthenticatedError
from issuer.revocation.feed import RevocationFeed
from issuer.revocation.watch import FeedWatch
from issuer.strict_json import read_query
from shared.feed import (
    FOLLOWER_HEADER,
    FOLLOWER_STALENESS_HEADER,
    MAX_PAGE_ENTRIES,
    MAX_WAIT,
    FeedPage,
    encode_page,
)

_NUMBER: Final = re.compile(r"[0-9]{1,18}")
_BEARER: Final = re.compile(r"[Bb][Ee][Aa][Rr][Ee][Rr] ([\x21-\x7e]+)")
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


def build_router(feed: RevocationFeed, watch: FeedWatch, feed_token: str) -> APIRouter:
    """Return the routes that verifiers follow.

    Args:
        feed: what is read.
        watch: holds requests until there is news.
        feed_token: what a verifier shows as Bearer; no access token opens these (R23).
    """
    router = APIRouter(tags=["revocation feed"])
    wanted = feed_token.encode()

    @router.get(
        "/revocations",
        summary="Revocations after a position",
        responses=_RESPONSES,
        openapi_extra={"parameters": _describe_parameters()},
    )
    async def follow(request: Request) -> Response:
        """Return a page of the feed, held for `wait` seconds while there is no news."""
        _authorize(request, wanted)
        _check_follower(request)
        query = read_query(request, _PARAMETERS)
        epoch = _read_epoch(query)
        after = _read_number(query, "after")
        limit = _read_number(query, "limit", MAX_PAGE_ENTRIES)
        wait = min(_read_number(query, "wait", 0), MAX_WAIT)
        if limit == 0:
            raise _refuse("limit", "must be at least 1")
        limit = min(limit, MAX_PAGE_ENTRIES)
        with watch.waiting(epoch, after) as news:
            page = await feed.page(epoch, after, limit)
            if wait and _is_empty(page):
                await _wait_for_news(request, news, wait)
                page = await feed.page(epoch, after, limit)
        return Response(encode_page(page), media_type="application/json")

    @router.get(
        "/revocations/snapshot", summary="All live revocations", responses=_RESPONSES
    )
    async def take_snapshot(request: Request) -> Response:
        """Return all live entries as one page, streamed."""
        _authorize(request, wanted)
        _check_follower(request)
        read_query(request, ())
        return StreamingResponse(await feed.snapshot(), media_type="application/json")

    return router


def _is_empty(page: FeedPage) -> bool:
    # Pruned entries leave an empty page that still moves the follower on.
    return page.to == page.after


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


def _authorize(request: Request, wanted: bytes) -> None:
    given = request.headers.getlist("Authorization")
    if not given:
        raise UnauthenticatedError("The feed needs its credential.", is_missing=True)
    match = _BEARER.fullmatch(given[0]) if len(given) == 1 else None
    # Constant time: how far a guess was right must not show.
    if match is None or not hmac.compare_digest(match[1].encode(), wanted):
        raise UnauthenticatedError("The feed credential is not right.")


def _check_follower(request: Request) -> None:
    follower = request.headers.getlist(FOLLOWER_HEADER)
    if len(follower) > 1 or not all(map(_is_uuid, follower)):
        raise _refuse(FOLLOWER_HEADER, "must be one UUID")
    staleness = request.headers.getlist(FOLLOWER_STALENESS_HEADER)
    if len(staleness) > 1 or not all(map(_NUMBER.fullmatch, staleness)):
        raise _refuse(FOLLOWER_STALENESS_HEADER, "must be one number of seconds")


def _read_epoch(query: dict[str, str]) -> str:
    epoch = query.get("epoch", "")
    if not _is_uuid(epoch):
        raise _refuse("epoch", "is required, a UUID")
    return epoch


def _read_number(query: dict[str, str], name: str, default: int | None = None) -> int:
    text = query.get(name)
    if text is None and default is not None:
        return default
    if text is None or not _NUMBER.fullmatch(text):
        raise _refuse(name, "must be a whole number from 0")
    return int(text)


def _is_uuid(text: str) -> bool:
    try:
        # The canonical spelling only: uuid.UUID also reads braces and urn:uuid:.
        return str(uuid.UUID(text)) == text
    except ValueError:
        return False


def _refuse(field: str, rule: str) -> InvalidRequestError:
    return InvalidRequestError(problems=[FieldProblem(field, rule)])


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
            "description": "Everything up to this position has been applied.",
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
