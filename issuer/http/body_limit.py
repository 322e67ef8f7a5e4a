"""The limit on request bodies, checked before they are stored (requirement R35)."""

from __future__ import annotations

import contextlib
from collections.abc import Mapping
from types import MappingProxyType

from starlette.datastructures import Headers
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from issuer.errors import PayloadTooLargeError
from issuer.http.error_responses import build_answer


class _BodyTooLargeError(Exception):
    """Ends the application's reading; the middleware catches it."""


class BodyLimit:
    """Answers 413 to a body over the limit, by its announced or its read length.

    Args:
        app: the guarded application.
        max_bytes: the largest body.
        larger: larger limits, by path.
    """

    def __init__(
        self,
        app: ASGIApp,
        max_bytes: int,
        larger: Mapping[str, int] = MappingProxyType({}),
    ) -> None:
        self._app = app
        self._max_bytes = max_bytes
        self._larger = larger

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one ASGI connection."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        max_bytes = self._larger.get(scope["path"], self._max_bytes)
        announced = Headers(scope=scope).get("Content-Length", "0")
        if announced.isdecimal() and int(announced[:20]) > max_bytes:
            await self._refuse(scope, receive, send)
            return
        received = 0
        is_over = has_started = False

        async def receive_counted() -> Message:
            nonlocal received, is_over
            message = await receive()
            received += len(message.get("body", b""))
            if received > max_bytes:
                is_over = True
                raise _BodyTooLargeError
            return message

        async def send_unless_over(message: Message) -> None:
            nonlocal has_started
            # FastAPI answers 400 to any error while reading; this answer replaces it.
            if has_started or not is_over:
                has_started = True
                await send(message)

        with contextlib.suppress(_BodyTooLargeError):
            await self._app(scope, receive_counted, send_unless_over)
        if is_over and not has_started:
            await self._refuse(scope, receive, send)

    async def _refuse(self, scope: Scope, receive: Receive, send: Send) -> None:
        answer = build_answer(scope["path"], PayloadTooLargeError())
        # The rest of the body stays unread, so the connection cannot be used again.
        answer.headers["Connection"] = "close"
        await answer(scope, receive, send)
