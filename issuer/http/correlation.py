"""The ids of one request: in the answer, in every log line and in the audit log.

A request has two ids. A caller may send its own in `X-Correlation-Id`, and a gateway
sends the one that it has in its log in `X-Request-ID`. Anything but a short plain word
is replaced, so that no foreign text reaches logs or answers; a missing one is the
other, or a new one. The trace id is that of a valid `traceparent` (W3C Trace Context).
"""

from __future__ import annotations

import re
from contextvars import ContextVar
from typing import Final, NamedTuple

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from shared.tracing.ids import (
    RAW_REQUEST_ID,
    find_only,
    find_request_id,
    find_trace_id,
    make_id,
)

HEADER: Final = "X-Correlation-Id"
_RAW_HEADER: Final = HEADER.lower().encode()
#: The audit log's column has 64 characters.
_PLAIN_WORD: Final = re.compile(rb"[A-Za-z0-9_-]{8,64}")


class RequestIds(NamedTuple):
    """The ids of one request.

    Attributes:
        correlation_id: the caller's own; also in errors and in the audit log.
        request_id: the gateway's.
        trace_id: of the trace that the request belongs to; empty for none.
    """

    correlation_id: str
    request_id: str
    trace_id: str


_current: ContextVar[RequestIds | None] = ContextVar("request_ids", default=None)


def current_correlation_id() -> str:
    """Return the id of the present request; empty outside of a request."""
    ids = _current.get()
    return ids.correlation_id if ids else ""


def note_trace(trace_id: str) -> None:
    """Use this trace id from now on in this request, for example that of a new trace.

    Args:
        trace_id: 32 hexadecimal digits.
    """
    ids = _current.get()
    if ids is not None:
        _current.set(ids._replace(trace_id=trace_id))


def log_context() -> dict[str, str]:
    """Return the fields for every log line of this request (`shared.log`)."""
    ids = _current.get()
    if ids is None:
        return {}
    fields = {"correlation_id": ids.correlation_id, "request_id": ids.request_id}
    if ids.trace_id:
        fields["trace_id"] = ids.trace_id
    return fields


class CorrelationMiddleware:
    """Sets the ids during a request and adds two of them to the answer."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one ASGI connection."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        ids = _choose_ids(scope["headers"])
        headers = (
            (_RAW_HEADER, ids.correlation_id.encode()),
            (RAW_REQUEST_ID, ids.request_id.encode()),
        )

        async def send_with_ids(message: Message) -> None:
            if message["type"] == "http.response.start":
                message["headers"] = [*message["headers"], *headers]
            await send(message)

        token = _current.set(ids)
        try:
            await self._app(scope, receive, send_with_ids)
        finally:
            _current.reset(token)


def _choose_ids(headers: list[tuple[bytes, bytes]]) -> RequestIds:
    request_id = find_request_id(headers)
    given = find_only(headers, _RAW_HEADER)
    if not _PLAIN_WORD.fullmatch(given):
        # The gateway's id leads from the audit log to the gateway's log.
        raw = request_id.encode()
        given = raw if _PLAIN_WORD.fullmatch(raw) else make_id().encode()
    correlation_id = given.decode("ascii")
    return RequestIds(
        correlation_id, request_id or correlation_id, find_trace_id(headers)
    )
