"""The access log: one line for each answered request, if the setting asks for it.

The line goes through the same bounded queue as every other (`shared.log_writer`), so a
full pipe delays no answer: lines are dropped and counted.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from typing import Final

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from issuer.http.observation.routes import method_of, route_of
from shared import log

_LOG: Final = logging.getLogger(__name__)


class AccessLog:
    """Writes the line `request.answered`, at any `ISSUER_LOG_LEVEL`.

    Args:
        app: the watched application.
        find_client: returns the client's address for an ASGI scope; never raises.
        elapsed: gives seconds.
    """

    def __init__(
        self,
        app: ASGIApp,
        find_client: Callable[[Scope], str],
        elapsed: Callable[[], float] = time.perf_counter,
    ) -> None:
        self._app = app
        self._find_client = find_client
        self._elapsed = elapsed
        # The setting asks for these lines; a higher level is for all the others.
        _LOG.setLevel(logging.INFO)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one ASGI connection."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        # 0: the client left before its answer.
        status = sent = 0

        async def send_watched(message: Message) -> None:
            nonlocal status, sent
            if message["type"] == "http.response.start":
                status = message["status"]
            else:
                sent += len(message.get("body", b""))
            await send(message)

        began = self._elapsed()
        try:
            await self._app(scope, receive, send_watched)
        finally:
            log.event(
                _LOG,
                logging.INFO,
                "request.answered",
                method=method_of(scope),
                route=route_of(scope),
                status=status,
                duration_ms=round((self._elapsed() - began) * 1_000, 3),
                bytes=sent,
                client=self._find_client(scope),
            )
