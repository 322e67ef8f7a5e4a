"""State shared by all connections: the sweep that ends overdue ones (R40)."""

from __future__ import annotations

import asyncio
from itertools import pairwise

from tests.support.gatehouse_verifier import started
from verifier.wire.public_port import PublicPort


class FakeConnection:
    """A connection that remembers that it was ended, and when it sent."""

    def __init__(self, deadline: float) -> None:
        self.deadline = deadline
        self.loop = asyncio.get_running_loop()
        self.is_ended = False
        self.sends = 0

    def expire(self) -> None:
        self.is_ended = True

    def send(self) -> None:
        self.sends += 1

    def abort(self) -> None:
        self.is_ended = True


async def a_port(deadlines: list[float]) -> tuple[PublicPort, list[FakeConnection]]:
    connections = [FakeConnection(deadline) for deadline in deadlines]
    gate = (await started()).gate
    return PublicPort(gate, lambda _: True, 10_000, 0.0, {*connections}), connections


async def test_sweep_ends_overdue_connections_and_updates_the_tick() -> None:
    port, (late, early) = await a_port([99.0, 101.0])
    await port.sweep(100.0)
    assert (late.is_ended, early.is_ended) == (True, False)
    assert port.tick == 100.0


async def test_checks_are_answered_while_thousands_are_ended() -> None:
    """R40: never more than a few at a time, or good traffic waits for the slow."""
    port, connections = await a_port([99.0] * 2_000)
    sweep = asyncio.create_task(port.sweep(100.0))
    ended = [0]
    while not sweep.done():
        await asyncio.sleep(0)
        ended.append(sum(connection.is_ended for connection in connections))
    assert ended[-1] == 2_000
    assert max(after - before for before, after in pairwise(ended)) <= 10


async def test_a_request_that_comes_during_a_sweep_keeps_its_connection() -> None:
    port, connections = await a_port([99.0] * 100)
    sweep = asyncio.create_task(port.sweep(100.0))
    await asyncio.sleep(0)
    *_, kept = (c for c in connections if not c.is_ended)
    kept.deadline = 175.0
    await sweep
    assert [c for c in connections if not c.is_ended] == [kept]


async def test_all_are_ended_at_once() -> None:
    port, connections = await a_port([99.0, 101.0])
    port.abort_all()
    assert all(connection.is_ended for connection in connections)


async def test_answers_are_sent_after_all_data_was_read() -> None:
    port, connections = await a_port([99.0] * 3)
    for connection in connections:
        port.send_soon(connection)
    assert [connection.sends for connection in connections] == [0, 0, 0]
    await asyncio.sleep(0)
    assert [connection.sends for connection in connections] == [1, 1, 1]
    port.send_soon(connections[0])
    await asyncio.sleep(0)
    assert [connection.sends for connection in connections] == [2, 1, 1]


async def test_an_answer_waits_for_a_few_others_and_no_more() -> None:
    port, connections = await a_port([99.0] * 40)
    for connection in connections:
        port.send_soon(connection)
    assert [connection.sends for connection in connections] == [1] * 32 + [0] * 8
    await asyncio.sleep(0)
    assert [connection.sends for connection in connections] == [1] * 40


async def test_answers_are_counted_not_connections() -> None:
    """docs/revocation.md: an answer waits for few others to be decided."""
    port, connections = await a_port([99.0] * 2)
    port.send_soon(connections[0], 3)
    port.send_soon(connections[1], 16)
    assert [connection.sends for connection in connections] == [1, 1]
