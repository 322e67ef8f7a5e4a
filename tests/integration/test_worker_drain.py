"""A worker's drain with connections of its last moment (R60)."""

from __future__ import annotations

import asyncio
import socket
from typing import Any, cast

import uvicorn
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import PlainTextResponse
from starlette.routing import Route

from shared.serving.limits import OPERATORS
from shared.serving.port import Port
from shared.serving.server import Duties, Lifecycle, WorkerServer
from tests.support.processes import eventually


async def answer(_request: Request) -> PlainTextResponse:
    return PlainTextResponse("here")


async def nothing() -> None:
    pass


async def is_closed(listener: socket.socket) -> bool:
    return listener.fileno() < 0


async def test_connections_accepted_last_are_answered() -> None:
    """It was closed without an answer: its request was still on its way."""
    listener = socket.create_server(("127.0.0.1", 0))
    config = uvicorn.Config(
        Starlette(routes=[Route("/", answer)]),
        http=cast(Any, Port("test", OPERATORS)),
        lifespan="off",
        log_config=None,
    )
    config.load()
    server = WorkerServer(config, listener, Lifecycle(), Duties(nothing))
    server.lifespan = config.lifespan_class(config)
    await server.startup()
    # As while it leaves connections to others, or has no descriptor.
    asyncio.get_running_loop().remove_reader(listener.fileno())
    with socket.create_connection(listener.getsockname()) as client:
        drain = asyncio.create_task(server.shutdown())
        await eventually(lambda: is_closed(listener))
        client.sendall(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
        client.settimeout(60)
        await drain
        received = client.recv(4_096)
    assert received.startswith(b"HTTP/1.1 200")
    assert b"connection: close" in received.lower()
