"""More than a thousand open streams leave room for the next request (R64)."""

from __future__ import annotations

import asyncio
import resource
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager

import pytest

from tests.support.processes import free_port
from tests.support.stack import GatewayUnderTest, Stack

pytestmark = pytest.mark.processes

#: Envoy's default is 1,024 streams; nginx's is 1,024 connections, two for each stream.
STREAMS = 1_100
NEEDED_FILES = 8_192
_BEGIN = (
    b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n"
    b"Transfer-Encoding: chunked\r\n\r\n9\r\ndata: 1\n\n\r\n"
)


@pytest.fixture
def _open_files() -> Iterator[None]:
    """Raise the limit of open files for this test and the gateway it starts."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    assert hard == resource.RLIM_INFINITY or hard >= NEEDED_FILES, (
        f"{NEEDED_FILES} open files are needed, the hard limit is {hard}: raise it "
        f"(ulimit -Hn {NEEDED_FILES})"
    )
    if soft != resource.RLIM_INFINITY and soft < NEEDED_FILES:
        resource.setrlimit(resource.RLIMIT_NOFILE, (NEEDED_FILES, hard))
    yield
    resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


@pytest.fixture
def port(gateway: GatewayUnderTest, stack: Stack, _open_files: None) -> tuple[int, int]:
    """The gateway's port, and that of the application it expects."""
    app = free_port()
    return stack.start_gateway(gateway.name, "many streams", app=app).port, app


async def test_a_thousand_open_streams_leave_room_for_requests(
    port: tuple[int, int], token: tuple[str, str]
) -> None:
    """R64: each takes a connection to the application for as long as it is open."""
    gateway_port, app_port = port
    request = (
        f"GET / HTTP/1.1\r\nHost: a.test\r\n{token[0]}: {token[1]}\r\n\r\n".encode()
    )
    async with asyncio.timeout(100), _streams_of(app_port):
        writers = []
        try:
            for _ in range(STREAMS):
                reader, writer = await asyncio.open_connection(
                    "127.0.0.1", gateway_port
                )
                writers.append(writer)
                writer.write(request)
                line = await reader.readline()
                assert line == b"HTTP/1.1 200 OK\r\n", (len(writers), line)
                await reader.readuntil(b"data: 1\n\n")
        finally:
            for writer in writers:
                writer.close()
            await asyncio.gather(
                *(writer.wait_closed() for writer in writers), return_exceptions=True
            )


@asynccontextmanager
async def _streams_of(app_port: int) -> AsyncIterator[None]:
    """Begin a stream for each request, and never end it."""

    async def begin(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            await reader.readuntil(b"\r\n\r\n")
            writer.write(_BEGIN)
            await reader.read()
        except (ConnectionError, asyncio.IncompleteReadError):
            pass  # the gateway may leave at any time
        finally:
            writer.close()

    server = await asyncio.start_server(begin, "127.0.0.1", app_port, backlog=1_024)
    async with server:
        yield
