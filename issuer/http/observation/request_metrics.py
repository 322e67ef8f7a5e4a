"""Counts and times every answer, by words that a client cannot choose."""

from __future__ import annotations

import time

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from issuer.http.observation.routes import method_of, route_of
from issuer.metrics import IssuerMetrics


class RequestMetrics:
    """Counts every answer by its route's template: the caller chooses the path."""

    def __init__(self, app: ASGIApp, metrics: IssuerMetrics) -> None:
        self._app = app
        self._metrics = metrics

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one ASGI connection."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        status = 0

        async def send_watched(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
            await send(message)

        began = time.perf_counter()
        try:
            await self._app(scope, receive, send_watched)
        finally:
            elapsed = time.perf_counter() - began
            self._metrics.request(method_of(scope), route_of(scope), status, elapsed)
