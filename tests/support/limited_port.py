"""An application on a port with small limits, and requests to it."""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import Iterator
from typing import Any

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import PlainTextResponse, StreamingResponse
from starlette.routing import Route

from shared.serving.limits import Limits
from tests.support.processes import PATIENCE
from tests.support.served_port import ServedPort, serving
from tests.support.wire_attacks import take_little

#: Seconds; long enough for a busy machine, short enough to wait for.
SOON = 0.4
GET = b"GET /x HTTP/1.1\r\nHost: a\r\n\r\n"
LAST = b"GET /x HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n"
LARGE = b"GET /large HTTP/1.1\r\nHost: a\r\n\r\n"
BLOCK = LARGE.replace(b"large", b"block")


class Application:
    """Answers `ok`, once a body was read; `/never` waits until the client goes."""

    def __init__(self) -> None:
        self.waiting = 0
        self.gone = 0
        self.block = 30_000_000
        self.let_go = asyncio.Event()
        routes = [
            Route("/never", self._wait, methods=["GET", "POST"]),
            Route("/deaf", self._be_deaf, methods=["POST"]),
            Route("/large", self._give_much),
            Route("/block", self._give_block),
            Route("/unread", self._give_early, methods=["POST"]),
            Route("/{path}", self._answer, methods=["GET", "POST"]),
        ]
        self.app = Starlette(routes=routes)

    async def _answer(self, request: Request) -> PlainTextResponse:
        body = await request.body()
        return PlainTextResponse(
            f"{request.client and request.client.host} {len(body)}"
        )

    async def _give_early(self, _request: Request) -> PlainTextResponse:
        return PlainTextResponse("ok", 401)

    async def _wait(self, request: Request) -> PlainTextResponse:
        self.waiting += 1
        try:
            while (await request.receive())["type"] != "http.disconnect":
                pass
            self.gone += 1
        finally:
            self.waiting -= 1
        return PlainTextResponse("ok")

    async def _be_deaf(self, _request: Request) -> PlainTextResponse:
        self.waiting += 1
        await self.let_go.wait()
        return PlainTextResponse("ok")

    async def _give_block(self, _request: Request) -> PlainTextResponse:
        return PlainTextResponse("x" * self.block)

    async def _give_much(self, _request: Request) -> StreamingResponse:
        async def pieces() -> Any:
            for _ in range(2_000):
                yield b"x" * 65_536

        return StreamingResponse(pieces())


@contextlib.contextmanager
def served(**limits: Any) -> Iterator[tuple[ServedPort, Application]]:
    application = Application()
    with serving(application.app, Limits(**limits)) as port:
        yield port, application


@contextlib.contextmanager
def connected(port: ServedPort, sent: bytes = b"") -> Iterator[socket.socket]:
    with socket.create_connection(("127.0.0.1", port.address), PATIENCE) as connection:
        connection.sendall(sent)
        yield connection


@contextlib.contextmanager
def connected_narrowly(port: ServedPort, sent: bytes) -> Iterator[socket.socket]:
    """Connect so that the kernel takes few answers."""
    with socket.socket() as connection:
        take_little(connection)
        connection.settimeout(PATIENCE)
        connection.connect(("127.0.0.1", port.address))
        connection.sendall(sent)
        yield connection


def read_all(connection: socket.socket) -> bytes:
    """Return all bytes until the server ends."""
    came = bytearray()
    with contextlib.suppress(ConnectionError):
        while data := connection.recv(65_536):
            came += data
    return bytes(came)


def padded(size: int) -> bytes:
    """Return a request with a head of `size` bytes."""
    head = LAST[:-2] + b"X: "
    return head + b"a" * (size - len(head) - 4) + b"\r\n\r\n"


def post(body: bytes, *lines: bytes, path: bytes = b"/x") -> bytes:
    head = (b"POST " + path + b" HTTP/1.1", b"Host: a", *lines, b"", b"")
    return b"\r\n".join(head) + body


def chunked(body: bytes) -> bytes:
    return post(body, b"Transfer-Encoding: chunked")
