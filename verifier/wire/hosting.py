"""Runs the public port under uvicorn's server, which accepts its connections.

uvicorn takes a class or a function as `http=`, and calls it for each connection. When
it drains, it calls `shutdown` of each connection in `server_state.connections`.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import AbstractAsyncContextManager
from typing import Any, cast

from uvicorn.config import Config
from uvicorn.server import ServerState

from verifier.wire.protocol import GateProtocol
from verifier.wire.public_port import PublicPort

Receive = Callable[[], Awaitable[dict[str, Any]]]
Send = Callable[[dict[str, Any]], Awaitable[None]]
Lifespan = Callable[[], AbstractAsyncContextManager[PublicPort]]


def gate_protocol(
    config: Config,
    server_state: ServerState,
    app_state: dict[str, Any],
    _loop: asyncio.AbstractEventLoop | None = None,
) -> GateProtocol:
    """Return the protocol of one new connection; uvicorn passes the arguments."""
    port: PublicPort = app_state["port"]
    # uvicorn drains exactly the accepted connections.
    server_state.connections = cast(Any, port.connections)
    return GateProtocol(port, _loop or asyncio.get_running_loop())


class LifespanApp:
    """The ASGI application under the public port; it serves the lifespan scope only.

    No request reaches it.

    Args:
        lifespan: starts the worker's parts and yields the public port.

    Attributes:
        port: None before the start.
    """

    def __init__(self, lifespan: Lifespan) -> None:
        self._lifespan = lifespan
        self.port: PublicPort | None = None

    async def __call__(
        self, scope: dict[str, Any], receive: Receive, send: Send
    ) -> None:
        """Serve the lifespan scope."""
        await receive()
        async with self._lifespan() as port:
            self.port = port
            # The server passes this state to every connection.
            scope["state"]["port"] = port
            await send({"type": "lifespan.startup.complete"})
            await receive()
        await send({"type": "lifespan.shutdown.complete"})
