"""The span of each request: below the caller's, named by method and route template.

The attributes are those of OpenTelemetry's conventions for HTTP servers that a client
cannot fill with text: not the path, the query or a header.
"""

from __future__ import annotations

from http import HTTPStatus
from typing import TYPE_CHECKING

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from issuer.http.correlation import note_trace
from issuer.http.observation.routes import method_of, route_of

if TYPE_CHECKING:
    from shared.tracing.exporting import Spans

#: The conventions' word for a method that is not known.
_OTHER = "_OTHER"


class ServerSpans:
    """Opens the span of each request, and notes its trace for the log lines.

    Args:
        app: the watched application.
        spans: makes them.
    """

    def __init__(self, app: ASGIApp, spans: Spans) -> None:
        self._app = app
        self._spans = spans

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one ASGI connection."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        method = method_of(scope)
        method = _OTHER if method == "other" else method
        attributes = {
            "http.request.method": method,
            "network.protocol.version": scope.get("http_version", ""),
        }
        status = 0

        async def send_watched(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
            await send(message)

        with self._spans.server(method, scope["headers"], attributes) as span:
            note_trace(span.trace_id)
            try:
                await self._app(scope, receive, send_watched)
            finally:
                route = route_of(scope)
                # The conventions' name where there is no route is the method alone.
                if route != "unmatched":
                    span.name(f"{method} {route}", {"http.route": route})
                if status >= HTTPStatus.CONTINUE:
                    span.answered(status)
