"""The operators' port: `/metrics`, `/healthz`, `/readyz`.

A port of its own, so that no header or path on the public port can reach these (R6,
R39). It is served inside the worker, by its own event loop: an answer there says that
this loop turns.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import socket
from collections.abc import Awaitable, Callable, Generator
from typing import Any, cast

import uvicorn
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from issuer.errors import UnavailableError
from shared import log
from shared.prometheus import CONTENT_TYPE
from shared.scrapes import Scrapes
from shared.serving.limits import OPERATORS
from shared.serving.port import Port
from shared.shortages import DESCRIPTORS_EXHAUSTED, NO_DESCRIPTOR, Shortages

_NO_STORE = {"Cache-Control": "no-store"}
_LOG = logging.getLogger(__name__)


def build_operators_app(
    scrapes: Scrapes,
    shortages: Shortages,
    require_ready: Callable[[], Awaitable[None]],
) -> Starlette:
    """Return the operators' application.

    Args:
        scrapes: answered at `/metrics`.
        shortages: of this worker; readiness reports them.
        require_ready: raises `UnavailableError` when requests could not be served; its
            detail is told, for only operators come here.
    """

    async def tell_metrics(_request: Request) -> Response:
        body = await scrapes.body()
        return Response(body, headers=_NO_STORE | {"Content-Type": CONTENT_TYPE})

    async def tell_health(_request: Request) -> Response:
        return JSONResponse({"status": "ok"}, headers=_NO_STORE)

    last_reason = ""

    def note(reason: str) -> None:
        """Log each change of the answer, not each answer."""
        nonlocal last_reason
        if reason and reason != last_reason:
            log.event(_LOG, logging.WARNING, "readiness.lost", reason=reason)
        elif last_reason and not reason:
            log.event(_LOG, logging.INFO, "readiness.back")
        last_reason = reason

    async def tell_readiness(_request: Request) -> Response:
        reason = await find_reason()
        note(reason)
        body: dict[str, object] = {"status": "unavailable" if reason else "ok"}
        if reason:
            body["reason"] = reason
        body["warnings"] = shortages.warnings
        status = 503 if reason else 200
        return JSONResponse(body, status_code=status, headers=_NO_STORE)

    async def find_reason() -> str:
        """Return why requests could not be served; empty when they could."""
        try:
            if shortages.has_no_descriptors:
                return DESCRIPTORS_EXHAUSTED
            await require_ready()
        except UnavailableError as error:
            return error.detail or error.description
        except OSError as error:
            # The last descriptor was taken since the last look, which is once a second.
            if error.errno not in NO_DESCRIPTOR:
                raise
            return DESCRIPTORS_EXHAUSTED
        return ""

    return Starlette(
        routes=[
            Route("/metrics", tell_metrics),
            Route("/healthz", tell_health),
            Route("/readyz", tell_readiness),
        ]
    )


class OperatorsServer:
    """Serves the operators' application on a socket that already listens.

    Several workers share the socket; whichever accepts answers for all of them.
    """

    def __init__(self, app: Starlette, listening_socket: socket.socket) -> None:
        self._socket = listening_socket
        self._server = _GuestServer(
            uvicorn.Config(
                app,
                log_config=None,
                lifespan="off",
                http=cast(Any, Port("operators", OPERATORS)),
                ws="none",
                proxy_headers=False,
                server_header=False,
                timeout_graceful_shutdown=1,
            )
        )
        self._task: asyncio.Task[None] | None = None

    def start(self) -> None:
        """Begin to serve, on the running event loop."""
        self._task = asyncio.create_task(self._server.serve(sockets=[self._socket]))

    async def stop(self) -> None:
        """Finish what is being answered and return."""
        self._server.should_exit = True
        if self._task is not None:
            await self._task


class _GuestServer(uvicorn.Server):
    """A server inside another server's process: signals are the other one's."""

    @contextlib.contextmanager
    def capture_signals(self) -> Generator[None, None, None]:
        """Leave the signal handlers as they are."""
        yield
