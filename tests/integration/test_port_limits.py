"""The ports that uvicorn serves without the gate: header reading is bounded (R40).

uvicorn with httptools has no bound: a 5 MB header was read whole, and silent connections
stayed past 75 s.
"""

from __future__ import annotations

import asyncio
import contextlib
import re
import socket
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import pytest
import uvicorn
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import PlainTextResponse
from starlette.routing import Route

from issuer.protocol import LimitedProtocol
from tests.support.processes import PATIENCE, ProcessFactory
from tests.support.raw_http import send
from tests.support.stack import Stack
from verifier.operators_protocol import OperatorsProtocol

#: Seconds; long enough for this machine, short enough to wait for.
SOON = 0.3
MAX_BYTES = LimitedProtocol.max_header_bytes
PROTOCOLS = {"issuer": LimitedProtocol, "verifier": OperatorsProtocol}


class _Server(uvicorn.Server):
    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Leave pytest's alone."""
        yield


class Port:
    """A served port."""

    def __init__(self, port: int) -> None:
        self.port = port

    async def talk(self, *pieces: bytes) -> bytes:
        """Send the pieces, end, and return all that comes until the server closes."""
        reader, writer = await asyncio.open_connection("127.0.0.1", self.port)
        answer = b""
        try:
            async with asyncio.timeout(PATIENCE):
                for piece in pieces:
                    writer.write(piece)
                    await writer.drain()
                answer = await reader.read()
        except ConnectionError:
            pass  # closed with something of ours unread
        finally:
            writer.close()
        return answer


@pytest.fixture(params=PROTOCOLS)
async def port(request: pytest.FixtureRequest) -> AsyncIterator[Port]:
    protocol: Any = PROTOCOLS[request.param]

    async def answer(request: Request) -> PlainTextResponse:
        await request.body()
        if request.url.path == "/slow":
            is_time = asyncio.Event()
            asyncio.get_running_loop().call_later(3 * SOON, is_time.set)
            await is_time.wait()
        return PlainTextResponse("ok")

    app = Starlette(routes=[Route("/{path}", answer, methods=["GET", "POST"])])
    hasty = type("Hasty", (protocol,), {"header_timeout": SOON, "body_timeout": SOON})
    listening = socket.create_server(("127.0.0.1", 0))
    config = uvicorn.Config(app, http=hasty, ws="none", log_config=None, lifespan="off")
    server = _Server(config)
    task = asyncio.create_task(server.serve(sockets=[listening]))
    yield Port(listening.getsockname()[1])
    server.should_exit = True
    await task


def statuses(answer: bytes) -> list[int]:
    return [int(found) for found in re.findall(rb"HTTP/1\.1 (\d+)", answer)]


CLOSE = b"Connection: close"


def padded(size: int) -> bytes:
    """Return a request whose target and headers count `size` bytes."""
    # A header counts its name, its value and four bytes.
    counted = len(b"/x") + len(b"Connectionclose") + 4 + len(b"X") + 4
    line = b"X: " + b"a" * (size - counted)
    return b"\r\n".join([b"GET /x HTTP/1.1", CLOSE, line, b"", b""])


async def test_a_header_at_the_limit_is_read_and_one_over_it_is_431(port: Port) -> None:
    assert statuses(await port.talk(padded(MAX_BYTES))) == [200]
    assert statuses(await port.talk(padded(MAX_BYTES + 1))) == [431]


@pytest.mark.parametrize(
    "opening",
    [b"GET /x HTTP/1.1\r\nX: ", b"GET /x HTTP/1.1\r\nX", b"GET /x", b"\r\n"],
    ids=["value", "name", "target", "nothing"],
)
async def test_what_never_ends_is_refused_before_it_ends(
    port: Port, opening: bytes
) -> None:
    filling = b"\r\n" if opening == b"\r\n" else b"a"
    answer = await port.talk(opening, *[filling * 4_096] * 5)
    assert statuses(answer) in ([431], [400], [])


async def test_a_megabyte_of_header_is_431(port: Port) -> None:
    answer = await port.talk(padded(1_000_000))
    assert statuses(answer) in ([431], [])


async def test_too_many_headers_are_431(port: Port) -> None:
    lines = [b"X-%d: a" % number for number in range(LimitedProtocol.max_headers + 1)]
    request = b"\r\n".join([b"GET /x HTTP/1.1", *lines, b"", b""])
    assert statuses(await port.talk(request)) == [431]


@pytest.mark.parametrize(
    "sent",
    [b"", b"GET /x HTTP/1.1\r\nHost:", b"\r\n", b"POST /x HTTP/1.1\r\n"],
    ids=["silent", "half", "empty-line", "no-header"],
)
async def test_a_header_that_does_not_come_ends_the_connection(
    port: Port, sent: bytes
) -> None:
    assert await port.talk(sent) == b""


async def test_dripping_does_not_extend_the_time(port: Port) -> None:
    reader, writer = await asyncio.open_connection("127.0.0.1", port.port)
    writer.write(b"GET /x HTTP/1.1\r\n")
    is_closed = False
    async with asyncio.timeout(PATIENCE):
        while not is_closed:
            writer.write(b"X: a\r\n")
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(SOON / 10):
                    is_closed = await is_ended(reader)
    writer.close()


async def is_ended(reader: asyncio.StreamReader) -> bool:
    """Tell whether the server has closed without a word, once something comes."""
    try:
        return await reader.read(1) == b""
    except ConnectionError:
        return True


async def test_a_second_request_has_its_own_time(port: Port) -> None:
    request = b"GET /x HTTP/1.1\r\n\r\n"
    answer = await port.talk(request + b"GET /x HTTP/1.1\r\n", b"X: a\r\n")
    assert statuses(answer) == [200]


async def test_a_body_that_does_not_come_ends_the_connection(port: Port) -> None:
    """Header limits alone would leave this way to hold a connection."""
    request = b"POST /x HTTP/1.1\r\nContent-Length: 9\r\n\r\nabc"
    assert statuses(await port.talk(request)) == []


async def test_an_answer_may_take_longer_than_a_header(port: Port) -> None:
    """The feed's long poll: what is waited for is ours to send."""
    request = b"GET /slow HTTP/1.1\r\nConnection: close\r\n\r\n"
    assert statuses(await port.talk(request)) == [200]


async def test_requests_in_one_piece_are_all_answered(port: Port) -> None:
    request = b"POST /x HTTP/1.1\r\nContent-Length: 3\r\n\r\nabc"
    last = b"GET /x HTTP/1.1\r\nConnection: close\r\n\r\n"
    assert statuses(await port.talk(request * 3 + last)) == [200] * 4


async def test_requests_before_an_oversize_one_are_not_answered_twice(
    port: Port,
) -> None:
    answer = await port.talk(b"GET /x HTTP/1.1\r\n\r\n" + padded(MAX_BYTES + 1))
    assert statuses(answer) in ([200], [200, 431], [431], [])


@pytest.mark.processes
def test_every_port_that_is_open_has_the_limit(tmp_path: Path) -> None:
    """R40: on the programs themselves, as they are served."""
    factory = ProcessFactory(tmp_path)
    try:
        addresses = Stack.start(tmp_path, factory).addresses
        for port in (
            addresses.issuer,
            addresses.issuer_admin,
            addresses.verifier,
            addresses.verifier_admin,
        ):
            answer = send(port, "GET", "/healthz", [("X", "a" * 20_000)])
            assert answer.status == 431, port
    finally:
        factory.stop_all()
