"""Refuses logins at once while the hashing pool is full (R33).

Routing, body and validation would be nine tenths of the cost of a refused login, and in
a flood refreshes would wait for them on the same event loop.
"""

from __future__ import annotations

from typing import NamedTuple

from starlette.types import ASGIApp, Receive, Scope, Send

from issuer.errors import OverloadedError
from issuer.hashing.hashing_pool import HashingPool
from issuer.http.error_responses import build_answer
from issuer.login.login_routes import LOGIN_PATH
from issuer.metrics import IssuerMetrics


class _Route(NamedTuple):
    """A route for the metrics, without the router."""

    path: str


class LoginAdmission:
    """Answers 503 at once to requests that need a hash while the pool is full.

    Args:
        app: the guarded application.
        pool: would run the hash.
        metrics: count the refused requests.
    """

    def __init__(
        self,
        app: ASGIApp,
        pool: HashingPool,
        metrics: IssuerMetrics,
    ) -> None:
        self._app = app
        self._pool = pool
        self._metrics = metrics

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one ASGI connection."""
        if (
            scope["type"] != "http"
            or not self._pool.is_full
            or scope["path"] != LOGIN_PATH
            or scope["method"] != "POST"
        ):
            await self._app(scope, receive, send)
            return
        self._metrics.login("overloaded")
        scope["route"] = _Route(scope["path"])
        answer = build_answer(scope["path"], OverloadedError())
        await answer(scope, receive, send)
