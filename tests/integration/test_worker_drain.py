"""A worker's drain with connections of its last moment (R60)."""

from __future__ import annotations

import asyncio
import socket
from typing import Any, cast

import pytest
import uvicorn
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import PlainTextResponse
from starlette.routing import Route

from shared.serving.limits import OPERATORS
from shared.serving.port import Port
from shared.serving.server import (
    Duties,
    Lifecycle,
    WorkerServer,
    longest_drain,
)
from tests.support.processes import eventually


async def answer(_request: Request) -> PlainTextResponse:
    return PlainTextResponse("here")


async def nothing() -> None:
    pass


def configure() -> uvicorn.Config:
    config = uvicorn.Config(
        Starlette(routes=[Route("/", answer, methods=["GET", "POST"])]),
        http=cast(Any, Port("test", OPERATORS)),
        lifespan="off",
        log_config=None,
    )
    config.load()
    return config


async def is_closed(listener: socket.socket) -> bool:
    return listener.fileno() < 0


async def test_connections_accepted_last_are_answered() -> None:
    """It was closed without an answer: its request was still on its way."""
    listener = socket.create_server(("127.0.0.1", 0))
    server = WorkerServer(configure(), listener, Lifecycle(), Duties(nothing))
    server.lifespan = server.config.lifespan_class(server.config)
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


class LateServer(WorkerServer):
    """A server to which a client writes at the last moment of its drain."""

    client: socket.socket
    passes = 0

    async def _pass(self, seconds: float, *, while_connected: bool = False) -> None:
        wait = seconds if self.passes >= 4 else 0.0
        await super()._pass(wait, while_connected=while_connected)
        self.passes += 1
        # Before idle connections are closed, and after the loop has read for the last
        # time.
        if self.passes == 4:
            self.client.sendall(
                b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 0\r\n\r\n"
            )


async def test_request_that_arrived_but_was_not_read_is_answered() -> None:
    """The connection counted as idle and was reset. A gateway repeats no POST."""
    listener = socket.create_server(("127.0.0.1", 0))
    server = LateServer(configure(), listener, Lifecycle(), Duties(nothing))
    server.lifespan = server.config.lifespan_class(server.config)
    await server.startup()
    with socket.create_connection(listener.getsockname()) as client:
        server.client = client

        async def is_connected() -> bool:
            return bool(server.server_state.connections)

        await eventually(is_connected)
        client.settimeout(60)
        await server.shutdown()
        received = client.recv(4_096)
    assert server.passes == 6
    assert received.startswith(b"HTTP/1.1 200")
    assert b"connection: close" in received.lower()


class TimedServer(WorkerServer):
    """A server whose drain takes no time; it adds up the seconds it would wait.

    A client connects at the end of one wait, and sends nothing.
    """

    connects_in = 0
    passes = 0
    now = 0.0
    connected_at = 0.0
    closed_at: float | None = None
    client: socket.socket | None = None

    async def _pass(self, seconds: float, *, while_connected: bool = False) -> None:
        self.now += seconds
        if self.passes == self.connects_in:
            self.client = socket.create_connection(self._listener.getsockname())
            self.connected_at = self.now
            before = len(self.server_state.connections)

            async def is_accepted() -> bool:
                return len(self.server_state.connections) > before

            await eventually(is_accepted)
        self.passes += 1

    def _close_idle(self, connections: set[Any]) -> None:
        super()._close_idle(connections)
        client = self.client
        ends = client.getsockname() if client else None
        for connection in connections:
            if connection.transport.get_extra_info("peername") == ends:
                self.closed_at = self.closed_at or self.now


@pytest.mark.parametrize("connects_in", [0, 1])
async def test_idle_connection_is_closed_after_the_configured_time(
    connects_in: int,
) -> None:
    """A gateway that keeps connections less long has closed it by then. Otherwise a
    POST could meet the close, and the gateway does not send it again.
    """
    listener = socket.create_server(("127.0.0.1", 0))
    duties = Duties(nothing, drain_delay=3.0, drain_idle=7.0)
    server = TimedServer(configure(), listener, Lifecycle(), duties)
    server.connects_in = connects_in
    server.lifespan = server.config.lifespan_class(server.config)
    await server.startup()
    await server.shutdown()
    assert server.client is not None
    server.client.close()
    assert server.closed_at is not None
    assert server.closed_at - server.connected_at >= 7.0
    assert server.now <= longest_drain(3.0, 7.0) + 2.0


class SuddenServer(WorkerServer):
    """A server that is stopped between a connection's protocol and its beginning."""

    drain: asyncio.Task[None] | None = None

    def _make_protocol(self) -> asyncio.BaseProtocol:
        protocol = super()._make_protocol()
        if self.drain is None:
            # Its first step comes before the step that begins the connection.
            self.drain = asyncio.get_running_loop().create_task(self.shutdown())
        return protocol


async def test_connection_that_begins_with_the_drain_gets_one_answer() -> None:
    """It was in no list yet, and was used until its close met a request."""
    listener = socket.create_server(("127.0.0.1", 0))
    server = SuddenServer(configure(), listener, Lifecycle(), Duties(nothing))
    server.lifespan = server.config.lifespan_class(server.config)
    await server.startup()
    reader, writer = await asyncio.open_connection(*listener.getsockname())
    writer.write(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
    received = await asyncio.wait_for(reader.readuntil(b"\r\n\r\n"), 60)
    writer.close()
    assert server.drain is not None
    await server.drain
    assert received.startswith(b"HTTP/1.1 200")
    assert b"connection: close" in received.lower()
