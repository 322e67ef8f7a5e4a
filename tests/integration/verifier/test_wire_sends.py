"""Answers leave together: none is lost, however the connection ends meanwhile."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import pytest

from shared.feed import EntryKind
from tests.integration.verifier.test_wire_contract import a_check, statuses_of
from tests.support.clock import FakeClock
from tests.support.gatehouse_verifier import SimulatedVerifier
from tests.support.issuer_simulator import IssuerSimulator
from tests.support.processes import PATIENCE
from tests.support.verifier_server import VerifierServer, serving
from verifier.wire.budgets import CHECKS_PER_TURN


@pytest.fixture
async def server() -> AsyncIterator[VerifierServer]:
    clock = FakeClock()
    verifier = SimulatedVerifier(clock, IssuerSimulator(clock))
    await verifier.sync()
    async with serving(verifier, "fast") as server:
        yield server


async def the_connection(server: VerifierServer) -> Any:
    """Return the server's side of the one connection there is."""
    async with asyncio.timeout(PATIENCE):
        while not server.port.connections:
            await asyncio.sleep(0)
    (connection,) = server.port.connections
    return connection


async def test_pending_answers_are_sent_before_a_drain_closes(
    server: VerifierServer,
) -> None:
    reader, writer = await server.connect()
    connection = await the_connection(server)
    connection.data_received(a_check(None) * 2)
    connection.shutdown()
    async with asyncio.timeout(PATIENCE):
        assert statuses_of(await reader.read()) == [401, 401]
    writer.close()


async def test_a_connection_that_breaks_takes_no_other_answer_along(
    server: VerifierServer,
) -> None:
    troubles: list[dict[str, Any]] = []
    asyncio.get_running_loop().set_exception_handler(
        lambda _, context: troubles.append(context)
    )
    _, broken_writer = await server.connect()
    broken = await the_connection(server)
    reader, writer = await server.connect()
    async with asyncio.timeout(PATIENCE):
        while len(server.port.connections) < 2:
            await asyncio.sleep(0)
        (other,) = server.port.connections - {broken}
        broken.data_received(a_check(None))
        other.data_received(a_check(None))
        broken.transport.abort()
        assert statuses_of(await reader.readuntil(b"\r\n\r\n")) == [401]
    assert troubles == []
    writer.close()
    broken_writer.close()


async def test_answers_decided_before_an_entry_leave_before_its_acknowledgement() -> (
    None
):
    """docs/revocation.md: else a 200 could follow a `confirmed`."""
    clock = FakeClock()
    issuer = IssuerSimulator(clock)
    verifier = SimulatedVerifier(clock, issuer)
    await verifier.sync()
    async with serving(verifier, "fast") as server:
        _, writer = await server.connect()
        connection = await the_connection(server)
        written = []
        connection.transport.write = written.append
        connection.data_received(a_check(issuer.mint(sid="ended")))
        assert written == []
        issuer.revoke(EntryKind.SID, "ended")
        # Applies the entry; the next step's request acknowledges it.
        await verifier.feed.step()
        assert [statuses_of(answer) for answer in written] == [[200]]
        connection.data_received(a_check(issuer.mint(sid="ended")))
        await asyncio.sleep(0)
        assert statuses_of(written[1]) == [401]
        writer.close()


async def test_a_connection_that_is_cut_off_answers_nothing_any_more(
    server: VerifierServer,
) -> None:
    """At a stop, before the goodbye: a 200 could follow a `confirmed`.

    Not what is decided, nor what waits for a peer that does not read.
    """
    _, writer = await server.connect()
    connection = await the_connection(server)
    check = a_check(None)
    while not connection.transport.get_write_buffer_size():
        connection.data_received(check * CHECKS_PER_TURN)
        # Its turns send.
        await asyncio.sleep(0)
    connection.data_received(check + check[:20])
    written: list[bytes] = []
    server.port.abort_all()
    connection.transport.write = written.append
    connection.data_received(check[20:])
    async with asyncio.timeout(PATIENCE):
        while server.port.connections:
            await asyncio.sleep(0)
    assert written == []
    writer.close()
