"""Lets web pages of listed origins call what people's applications need (CORS).

Starlette's middleware answers preflights and marks answers; this one decides which
requests it sees. The others get no CORS header at all, so a browser keeps their answers
from the page: those of other origins, the feed, and what administrators and resource
servers call. There is no cookie here, so credentials are never allowed: a page that calls
must hold a token already.
"""

from __future__ import annotations

from collections.abc import Collection
from typing import Final

from starlette.datastructures import MutableHeaders
from starlette.middleware.cors import CORSMiddleware
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from issuer.http.correlation import HEADER as CORRELATION_HEADER

#: What an application in a browser calls, each with everything below it.
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
#: Request headers the routes read, besides those that need no permission.
REQUEST_HEADERS: Final = (
    "Authorization",
    "If-Match",
    "If-None-Match",
    "Prefer",
    CORRELATION_HEADER,
)
#: Answer headers that say what to do next; a page sees few others.
ANSWER_HEADERS: Final = (
    "Allow",
    "ETag",
    "Location",
    "Preference-Applied",
    "Retry-After",
    "WWW-Authenticate",
    CORRELATION_HEADER,
)
#: How long a browser may keep a preflight's answer, seconds.
_MAX_AGE: Final = 600


class BrowserAccess:
    """Answers preflights and marks answers, for listed origins and paths.

    Stands outside of what answers errors, so that a page can read these too.

    Args:
        app: what it guards.
        origins: each as browsers send it, compared exactly.
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
                # A cache must not give this answer to a page of a listed origin.
                MutableHeaders(scope=message).add_vary_header("Origin")
            await send(message)

        await self._app(scope, receive, send_varied)


def _is_open(path: str) -> bool:
    return any(path == open_ or path.startswith(f"{open_}/") for open_ in PATHS)
