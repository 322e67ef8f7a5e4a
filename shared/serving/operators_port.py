"""Serves the operators' application beside the public port, in the same process."""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import AsyncIterator, Callable, Iterator
from typing import Any, cast

import uvicorn

from shared.serving.limits import OPERATORS
from shared.serving.port import Port


class _GuestServer(uvicorn.Server):
    """A server inside another server's process, which handles the signals."""

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Override uvicorn's method: leave the signal handlers as they are."""
        yield


@contextlib.asynccontextmanager
async def serve_operators(
    application: Callable[..., Any], listener: socket.socket | None
) -> AsyncIterator[None]:
    """Serve the operators' application while the body runs; finish running answers.

    Several workers share the socket; the one that accepts answers for all.

    Args:
        application: an ASGI application.
        listener: the operators' listening socket, which stays open; None: nothing is
            served.
    """
    if listener is None:
        yield
        return
    server = _GuestServer(
        uvicorn.Config(
            application,
            http=cast(Any, Port("operators", OPERATORS)),
            ws="none",
            lifespan="off",
            log_config=None,
            access_log=False,
            server_header=False,
            proxy_headers=False,
            # A peer that reads slowly would otherwise delay the stop without limit.
            timeout_graceful_shutdown=1,
        )
    )
    task = asyncio.create_task(server.serve(sockets=[listener.dup()]))
    try:
        yield
    finally:
        server.should_exit = True
        await task
