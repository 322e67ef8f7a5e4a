"""One id per request, in the answer, in every log line and in the audit log.

A caller may send its own id in `X-Correlation-Id`. Anything but a short plain word is
replaced, so that no foreign text reaches logs or answers.
"""

from __future__ import annotations

import random
import re
from contextvars import ContextVar
from typing import Final

from starlette.datastructures import Headers
from starlette.types import ASGIApp, Message, Receive, Scope, Send

HEADER: Final = "X-Correlation-Id"
_RAW_HEADER: Final = HEADER.lower().encode()
_PLAIN_WORD: Final = re.compile(r"[A-Za-z0-9_-]{8,64}")
_current: ContextVar[str] = ContextVar("correlation_id", default="")


def current_correlation_id() -> str:
    """Return the id of the present request; empty outside of a request."""
    return _current.get()


def log_context() -> dict[str, str]:
    """Return the fields for every log line of this request (`shared.log`)."""
    correlation_id = _current.get()
    return {"correlation_id": correlation_id} if correlation_id else {}


class CorrelationMiddleware:
    """Sets the id during a request and adds it to the answer."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one ASGI connection."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        correlation_id = _choose_id(Headers(scope=scope).getlist(HEADER))

        async def send_with_id(message: Message) -> None:
            if message["type"] == "http.response.start":
                header = (_RAW_HEADER, correlation_id.encode())
                message["headers"] = [*message["headers"], header]
            await send(message)

        token = _current.set(correlation_id)
        try:
            await self._app(scope, receive, send_with_id)
        finally:
            _current.reset(token)


def _choose_id(given: list[str]) -> str:
    if len(given) == 1 and _PLAIN_WORD.fullmatch(given[0]):
        return given[0]
    # It must be unique, not secret: no system call is needed.
    return f"{random.getrandbits(128):032x}"
