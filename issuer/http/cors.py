"""Lets web pages of listed origins call the endpoints that applications need (CORS).

Starlette's middleware answers preflights and adds headers; this one selects its
requests. All others get no CORS header, so a browser hides their answers from the page:
requests of other origins, the feed, and the endpoints for administrators and resource
servers. There are no cookies, so credentials are never allowed: a page needs a token.
"""

from __future__ import annotations

from collections.abc import Collection
from typing import Final

from starlette.datastructures import MutableHeaders
from starlette.middleware.cors import CORSMiddleware
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from issuer.http.correlation import HEADER as CORRELATION_HEADER
from shared.tracing.ids import REQUEST_ID

#: Paths that an application in a browser calls, each with all paths below it.
PATHS: Final = (
    "/.well-known",
    "/auth",
    "/oauth2/revoke",
    "/oauth2/token",
    "/openapi.json",
    "/status-lists",
    "/users/me",
)
#: The methods of the routes there.
METHODS: Final = ("DELETE", "GET", "HEAD", "PATCH", "POST")
#: Request headers that the routes read, except those that need no permission.
REQUEST_HEADERS: Final = (
    "Authorization",
    "If-Match",
    "If-None-Match",
    "Prefer",
    CORRELATION_HEADER,
)
#: Answer headers that a client needs; a page sees few others.
ANSWER_HEADERS: Final = (
    "Allow",
    "ETag",
    "Location",
    "Preference-Applied",
    "Retry-After",
    "WWW-Authenticate",
    CORRELATION_HEADER,
    REQUEST_ID,
)
#: Seconds a browser may cache a preflight's answer.
_MAX_AGE: Final = 600


class BrowserAccess:
    """Answers preflights and adds headers, for listed origins and paths.

    It is outside of the error handling, so that a page can also read errors.

    Args:
        app: the guarded application.
        origins: in the form that browsers send, compared exactly.
    """

    def __init__(self, app: ASGIApp, origins: Collection[str]) -> None:
        self._app = app
        self._origins = frozenset(origins)
        self._cors = CORSMiddleware(
            app,
            allow_origins=self._origins,
            allow_methods=METHODS,
            allow_headers=REQUEST_HEADERS,
            allow_credentials=False,
            expose_headers=ANSWER_HEADERS,
            max_age=_MAX_AGE,
        )

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one ASGI connection."""
        if scope["type"] != "http" or not _is_open(scope["path"]):
            await self._app(scope, receive, send)
            return
        given = [value for name, value in scope["headers"] if name == b"origin"]
        if len(given) == 1 and given[0].decode("latin-1") in self._origins:
            await self._cors(scope, receive, send)
            return

        async def send_varied(message: Message) -> None:
            if message["type"] == "http.response.start":
                # A cache must not return this answer to a page of a listed origin.
                MutableHeaders(scope=message).add_vary_header("Origin")
            await send(message)

        await self._app(scope, receive, send_varied)


def _is_open(path: str) -> bool:
    return any(path == open_ or path.startswith(f"{open_}/") for open_ in PATHS)
