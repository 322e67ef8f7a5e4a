"""Refuses logins at once while the hashing pool is full (R33).

Routing, body and validation would be nine tenths of the cost of a refused login, and in
a flood refreshes would wait for them on the same event loop.
"""

from __future__ import annotations

from collections.abc import Callable, Collection
from typing import NamedTuple

from starlette.responses import Response
from starlette.types import ASGIApp, Receive, Scope, Send

from issuer.errors import OverloadedError
from issuer.hashing.hashing_pool import HashingPool


class _Route(NamedTuple):
    """A route for the metrics, without the router."""

    path: str


class LoginAdmission:
    """Answers 503 at once to requests that need a hash while the pool is full.

    Args:
        app: the guarded application.
        pool: would run the hash.
        paths: of requests that need a hash.
        build_answer: returns the answer for a path and an error.
        on_refused: called for each refused request.
    """

    def __init__(
        self,
        app: ASGIApp,
        pool: HashingPool,
        paths: Collection[str],
        build_answer: Callable[[str, OverloadedError], Response],
        on_refused: Callable[[], None],
    ) -> None:
        self._app = app
        self._pool = pool
        self._paths = frozenset(paths)
        self._build_answer = build_answer
        self._on_refused = on_refused

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one ASGI connection."""
        if (
            scope["type"] != "http"
            or not self._pool.is_full
            or scope["path"] not in self._paths
            or scope["method"] != "POST"
        ):
            await self._app(scope, receive, send)
            return
        self._on_refused()
        scope["route"] = _Route(scope["path"])
        answer = self._build_answer(scope["path"], OverloadedError())
        await answer(scope, receive, send)
