"""The public port under uvicorn's server, for as long as that accepts its connections.

uvicorn takes a class or a function as `http=`, calls it for each connection, and calls
`shutdown` of each in `server_state.connections` when it drains.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import AbstractAsyncContextManager
from typing import Any, cast

from uvicorn.config import Config
from uvicorn.server import ServerState

from verifier.wire.edge import Edge
from verifier.wire.protocol import GateProtocol

Receive = Callable[[], Awaitable[dict[str, Any]]]
Send = Callable[[dict[str, Any]], Awaitable[None]]
Lifespan = Callable[[], AbstractAsyncContextManager[Edge]]


def gate_protocol(
    config: Config,
    server_state: ServerState,
    app_state: dict[str, Any],
    _loop: asyncio.AbstractEventLoop | None = None,
) -> GateProtocol:
    """Return the protocol of one new connection; its arguments are uvicorn's."""
    edge: Edge = app_state["edge"]
    # What uvicorn drains are all connections that were taken, and only those.
    server_state.connections = cast(Any, edge.connections)
    return GateProtocol(edge, _loop or asyncio.get_running_loop())


class Life:
    """All that uvicorn runs of an application on the public port: its begin and end.

    No request reaches it.

    Args:
        lifespan: opens what runs beside the gate and gives the edge.

    Attributes:
        edge: None before the begin.
    """

    def __init__(self, lifespan: Lifespan) -> None:
        self._lifespan = lifespan
        self.edge: Edge | None = None

    async def __call__(
        self, scope: dict[str, Any], receive: Receive, send: Send
    ) -> None:
        """Serve the lifespan scope."""
        await receive()
        async with self._lifespan() as edge:
            self.edge = edge
            # The server hands this state to every connection it makes.
            scope["state"]["edge"] = edge
            await send({"type": "lifespan.startup.complete"})
            await receive()
        await send({"type": "lifespan.shutdown.complete"})
