"""`GET /status-lists` and `GET /status-lists/{number}`, for anybody."""

from __future__ import annotations

import re
from typing import Annotated, Final

import orjson
from fastapi import APIRouter, Depends, Request, Response

from issuer.errors import NotFoundError
from issuer.exports.status_list import LISTS_PATH
from issuer.exports.status_list_tokens import TYP, StatusLists
from issuer.http.dependencies import PartOf
from issuer.keys.jwks_routes import has_etag

#: Draft, section 8.1: readers may be pages in a browser.
_ANY_ORIGIN: Final = {"Access-Control-Allow-Origin": "*"}
_NUMBER: Final = re.compile(r"0|[1-9][0-9]{0,8}")


router = APIRouter(tags=["status lists"])
_StatusLists = Annotated[StatusLists, Depends(PartOf(StatusLists))]


@router.get(
    LISTS_PATH,
    summary="All status lists",
    responses={200: {"content": {"application/json": {}}}},
    response_class=Response,
)
async def tell_lists(lists: _StatusLists) -> Response:
    """Return `{"status_lists": [uri, ...]}` (draft, section 9.2)."""
    body = orjson.dumps({"status_lists": await lists.uris()})
    return Response(body, headers=_caching(lists), media_type="application/json")


@router.get(
    LISTS_PATH + "/{number}",
    summary="One status list, signed",
    responses={200: {"content": {f"application/{TYP}": {}}}},
    response_class=Response,
)
async def publish_list(number: str, request: Request, lists: _StatusLists) -> Response:
    """Return the status list token, or 304 when the client has it already."""
    if not _NUMBER.fullmatch(number):
        raise NotFoundError
    found = await lists.get(int(number))
    headers = {"ETag": found.etag, **_caching(lists)}
    if has_etag(request.headers.getlist("If-None-Match"), found.etag):
        return Response(status_code=304, headers=headers)
    return Response(found.token, headers=headers, media_type=f"application/{TYP}")


def _caching(lists: StatusLists) -> dict[str, str]:
    return {"Cache-Control": f"public, max-age={lists.ttl}", **_ANY_ORIGIN}
