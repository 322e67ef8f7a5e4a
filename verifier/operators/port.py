"""Serves the operators' application, in the same process as the public port."""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import AsyncIterator, Iterator
from typing import Any, cast

import uvicorn
from starlette.applications import Starlette

from shared.serving.limits import OPERATORS
from shared.serving.port import Port


class AdminServer(uvicorn.Server):
    """A second server in the same process; the first one handles the signals."""

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Override uvicorn's method: capture no signals."""
        yield


@contextlib.asynccontextmanager
async def serve_operators(
    application: Starlette, listener: socket.socket
) -> AsyncIterator[None]:
    """Serve the operators' application while the context is open.

    Args:
        application: made by `build_admin`.
        listener: the operators' listening socket, which stays open.
    """
    server = AdminServer(
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
