"""Keeps answers out of caches."""

from __future__ import annotations

from starlette.types import ASGIApp, Message, Receive, Scope, Send


class NoStore:
    """Adds `Cache-Control: no-store` to every answer without a `Cache-Control`.

    Args:
        app: the guarded application.
    """

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one ASGI connection."""

        async def send_marked(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = message["headers"]
                if all(name != b"cache-control" for name, _ in headers):
                    message["headers"] = [*headers, (b"cache-control", b"no-store")]
            await send(message)

        await self._app(scope, receive, send_marked)
