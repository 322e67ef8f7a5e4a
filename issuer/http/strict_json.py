"""Request bodies and queries, read strictly: one meaning or a refusal (R5, R35).

FastAPI's own reader accepts NaN, lone surrogates and UTF-16, on which PostgreSQL fails
later. Here the input is UTF-8, the JSON is RFC 8259, no string has a NUL, and no
parameter or member is repeated. No message repeats the input.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Coroutine, Mapping
from typing import Any, Final
from urllib.parse import parse_qsl

import orjson
from fastapi import Request, Response
from fastapi.routing import APIRoute

from issuer.errors import InvalidRequestError, UnsupportedMediaTypeError
from shared.jose.json_members import DuplicateMemberError, require_distinct_members

_BAD_ESCAPE: Final = re.compile(r"%(?![0-9A-Fa-f]{2})")
_LIMIT: Final = re.compile(r"[1-9][0-9]{0,2}")
_FORM: Final = "application/x-www-form-urlencoded"


class StrictRequest(Request):
    """A request whose JSON body has been read strictly."""

    strict_json: Any = None

    async def json(self) -> Any:
        """Return the body from `read_json`."""
        return self.strict_json


class StrictRoute(APIRoute):
    """A route whose JSON body is read by `read_json`."""

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        """Return FastAPI's handler behind our reader.

        Our reader runs first because FastAPI turns every error of a reader into the
        same 400.
        """
        answer = super().get_route_handler()
        if self.body_field is None:
            return answer

        async def answer_strictly(request: Request) -> Response:
            strict_request = StrictRequest(request.scope, request.receive)
            strict_request.strict_json = await read_json(strict_request)
            return await answer(strict_request)

        return answer_strictly


class PlainRoute(APIRoute):
    """A route whose endpoint takes the request and returns the response.

    FastAPI only documents it: no dependencies, no reading of the body. For an endpoint
    that reads by itself this saves a tenth of the cost of a `client_credentials` grant.
    """

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        """Return the endpoint itself."""
        endpoint: Callable[[Request], Coroutine[Any, Any, Response]] = self.endpoint
        return endpoint


async def read_json(request: Request) -> dict[str, Any]:
    """Return the request's body, a JSON object.

    Raises:
        UnsupportedMediaTypeError: when its type is not `application/json`.
        InvalidRequestError: when it is not strict JSON, not an object, or has a member
            twice.
    """
    _require_media_type(request, "application/json")
    body = await request.body()
    try:
        data = orjson.loads(body)
    except orjson.JSONDecodeError:
        raise InvalidRequestError.of_field(
            "body", "must be JSON in UTF-8 (RFC 8259)"
        ) from None
    if not isinstance(data, dict):
        raise InvalidRequestError.of_field("body", "must be a JSON object")
    try:
        require_distinct_members(body, data)
    except DuplicateMemberError as error:
        raise InvalidRequestError.of_field(error.name or "body", error.rule) from None
    _refuse_nul(data)
    return data


async def read_form(request: Request) -> dict[str, str]:
    """Return the parameters of an OAuth form body.

    A parameter without a value counts as left out (RFC 6749, section 3.2).

    Raises:
        UnsupportedMediaTypeError: when its type is not
            `application/x-www-form-urlencoded`.
        InvalidRequestError: for a repeated parameter, a bad escape, or text that is
            not UTF-8.
    """
    _require_media_type(request, _FORM)
    parameters = _parse_parameters(await request.body(), "body")
    return {name: value for name, value in parameters.items() if value}


def read_query(request: Request, known: Collection[str]) -> dict[str, str]:
    """Return the query's parameters; each must be known and given once.

    Raises:
        InvalidRequestError: naming the fault.
    """
    query: bytes = request.scope["query_string"]
    parameters = _parse_parameters(query, "query")
    if not parameters.keys() <= set(known):
        raise InvalidRequestError.of_field(
            "query", f"only {', '.join(known)} are known here"
        )
    return parameters


def read_limit(query: Mapping[str, str], most: int) -> int:
    """Return the query's `limit`, the rows of a page; without it the most.

    Raises:
        InvalidRequestError: when it is not a whole number from 1 to the most.
    """
    text = query.get("limit", str(most))
    if not _LIMIT.fullmatch(text) or int(text) > most:
        raise InvalidRequestError.of_field(
            "limit", f"must be a whole number from 1 to {most}"
        )
    return int(text)


def _parse_parameters(data: bytes, place: str) -> dict[str, str]:
    parameters: dict[str, str] = {}
    try:
        text = data.decode("ascii")
        if _BAD_ESCAPE.search(text):
            raise InvalidRequestError.of_field(place, "has a bad percent escape")
        pairs = parse_qsl(text, keep_blank_values=True, errors="strict")
    except UnicodeDecodeError:
        raise InvalidRequestError.of_field(
            place, "must be percent-encoded UTF-8"
        ) from None
    for name, value in pairs:
        if name in parameters:
            raise InvalidRequestError.of_field(place, "a parameter is repeated")
        if "\0" in name or "\0" in value:
            raise InvalidRequestError.of_field(place, "must not hold a NUL")
        parameters[name] = value
    return parameters


def _refuse_nul(data: dict[str, Any]) -> None:
    """Refuse a NUL: PostgreSQL's text cannot store it and would fail with a 500."""
    waiting: list[tuple[str, Any]] = [("body", data)]
    while waiting:
        place, value = waiting.pop()
        if isinstance(value, str):
            if "\0" in value:
                raise InvalidRequestError.of_field(place, "must not hold a NUL")
        elif isinstance(value, list):
            waiting.extend((place, item) for item in value)
        elif isinstance(value, dict):
            waiting.extend(("body", name) for name in value)
            waiting.extend(("body", item) for item in value.values())


def _require_media_type(request: Request, wanted: str) -> None:
    given = request.headers.getlist("Content-Type")
    media_type, _, parameters = given[0].partition(";") if given else ("", "", "")
    charset = parameters.strip().lower().replace('"', "")
    if (
        len(given) != 1
        or media_type.strip().lower() != wanted
        or charset not in {"", "charset=utf-8"}
    ):
        raise UnsupportedMediaTypeError(f"The body must be {wanted} in UTF-8.")
