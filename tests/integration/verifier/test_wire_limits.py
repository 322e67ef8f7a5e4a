"""The fast path's own limits (R40): size, number and time of headers, connections.

uvicorn with httptools has none of them: a 5 MB header was read whole, and silent
connections stayed past 75 s.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator

import pytest

from tests.integration.verifier.test_wire_contract import CLOSE, a_check, statuses_of
from tests.support.clock import FakeClock
from tests.support.gate_counts import counts_of
from tests.support.gatehouse_verifier import SimulatedVerifier
from tests.support.issuer_simulator import IssuerSimulator
from tests.support.processes import PATIENCE
from tests.support.verifier_server import VerifierServer, serving
from verifier.wire.budgets import HEAD_BYTES, HEAD_TIME, HEADERS, IDLE_TIME

MAX_CONNECTIONS = 5


class Limited:
    """A served verifier with a clock that the test moves."""

    def __init__(self, server: VerifierServer, clock: FakeClock, token: bytes) -> None:
        self.server = server
        self.clock = clock
        self.token = token
        self.writers: list[asyncio.StreamWriter] = []

    async def open(self, *sent: bytes) -> asyncio.StreamReader:
        """Open a connection, send something, and wait until the server has read it."""
        reader, writer = await self.server.connect()
        self.writers.append(writer)
        for piece in sent:
            writer.write(piece)
            await writer.drain()
        # A second connection's whole exchange passes through the same loop behind it.
        await self.server.talk(a_check(None, CLOSE))
        return reader

    async def pass_time(self, seconds: float) -> None:
        """Let time pass and let the server look at its connections."""
        self.clock.advance(seconds)
        await self.server.port.sweep(self.clock.monotonic())


async def wait_until_closed(reader: asyncio.StreamReader) -> None:
    """Return once the server has closed; read everything before."""
    # Reset: closed with something of ours still unread.
    with contextlib.suppress(ConnectionResetError):
        async with asyncio.timeout(PATIENCE):
            await reader.read()


async def is_open(reader: asyncio.StreamReader) -> bool:
    """Return whether the server sends nothing for a moment and does not close."""
    try:
        async with asyncio.timeout(0.2):
            await reader.read()
    except TimeoutError:
        return True
    except ConnectionResetError:
        return False
    return False


@pytest.fixture
async def limited() -> AsyncIterator[Limited]:
    clock = FakeClock()
    issuer = IssuerSimulator(clock)
    verifier = SimulatedVerifier(clock, issuer)
    await verifier.sync()
    async with serving(verifier, "fast", max_connections=MAX_CONNECTIONS) as server:
        limited = Limited(server, clock, issuer.mint())
        yield limited
        for writer in limited.writers:
            writer.close()


def padded(size: int) -> bytes:
    """Return a check with a head of `size` bytes."""
    padding = size - len(a_check(None, b"X: ", CLOSE))
    return a_check(None, b"X: " + b"a" * padding, CLOSE)


async def test_a_header_at_the_limit_is_read(limited: Limited) -> None:
    answer = await limited.server.talk(padded(HEAD_BYTES))
    assert statuses_of(answer) == [401]


async def test_a_header_over_the_limit_is_431(limited: Limited) -> None:
    answer = await limited.server.talk(padded(HEAD_BYTES + 1))
    assert statuses_of(answer) == [431]


@pytest.mark.parametrize(
    "opening",
    [
        b"GET /verify/nginx HTTP/1.1\r\nX: ",
        b"GET /verify/nginx HTTP/1.1\r\nX",
        b"GET /verify/nginx",
    ],
    ids=["value", "name", "target"],
)
async def test_an_endless_line_is_431_before_it_ends(
    limited: Limited, opening: bytes
) -> None:
    """Counted also where the parser holds the bytes back."""
    chunks = [b"a" * 4_096] * 5
    answer = await limited.server.talk(opening, *chunks)
    assert statuses_of(answer) in ([431], [400])


async def test_too_many_headers_are_431(limited: Limited) -> None:
    lines = [b"X-%d: a" % n for n in range(HEADERS)]
    answer = await limited.server.talk(a_check(None, *lines))
    assert statuses_of(answer) == [431]


async def test_answers_before_an_oversize_request_still_arrive(
    limited: Limited,
) -> None:
    good = a_check(limited.token)
    answer = await limited.server.talk(good + padded(HEAD_BYTES + 1))
    assert statuses_of(answer) == [200, 431]


@pytest.mark.parametrize(
    "sent", [b"", b"GET /verify/nginx HTTP/1.1\r\nHost:"], ids=["silent", "half"]
)
async def test_a_header_that_does_not_come_ends_the_connection(
    limited: Limited, sent: bytes
) -> None:
    reader = await limited.open(sent)
    await limited.pass_time(HEAD_TIME - 1)
    assert await is_open(reader)
    await limited.pass_time(2)
    await wait_until_closed(reader)


async def test_dripping_does_not_extend_the_time(limited: Limited) -> None:
    reader = await limited.open(b"GET /verify/nginx HTTP/1.1\r\n")
    for _ in range(3):
        await limited.pass_time(2)
        limited.writers[0].write(b"X: a\r\n")
    await wait_until_closed(reader)


async def test_an_idle_connection_stays_longer_than_nginx_keeps_it(
    limited: Limited,
) -> None:
    reader = await limited.open(a_check(limited.token))
    assert (await reader.readuntil(b"\r\n\r\n")).startswith(b"HTTP/1.1 200")
    await limited.pass_time(61)
    assert await is_open(reader)
    await limited.pass_time(IDLE_TIME - 61 + 1)
    await wait_until_closed(reader)


async def test_connections_past_the_limit_are_503_and_counted(limited: Limited) -> None:
    held = [await limited.open() for _ in range(MAX_CONNECTIONS - 1)]
    extra = await limited.open()
    answer = await limited.server.talk(a_check(limited.token, CLOSE))
    assert statuses_of(answer) == [503]
    assert counts_of(limited.server.port.gate)["overloaded"] >= 1
    await limited.pass_time(HEAD_TIME + 1)
    for reader in [*held, extra]:
        await wait_until_closed(reader)
    answer = await limited.server.talk(a_check(limited.token, CLOSE))
    assert statuses_of(answer) == [200]
