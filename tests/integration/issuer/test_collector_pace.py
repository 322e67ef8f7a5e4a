"""A serving issuer collects cycles, but not what it started with, again and again."""

from __future__ import annotations

import asyncio
import gc
import socket
from collections import deque
from collections.abc import Callable, Iterator

import pytest
import uvicorn
from starlette.applications import Starlette

from issuer.serve import COLLECTOR_PACE
from shared import collector
from shared.serving.server import Duties, Lifecycle, WorkerServer

#: Objects that a call makes, and calls: more than a full collection is put off by.
_OBJECTS, _CALLS = 30, 60_000
#: Calls under way at once: what they hold outlives collections of the young.
_AT_ONCE = 100


class _Call:
    """Part of a cycle, as a task and its exception are."""

    alive = 0

    def __init__(self) -> None:
        self.cycle = self
        self.held: list[list[None]] = [[] for _ in range(_OBJECTS)]
        _Call.alive += 1

    def __del__(self) -> None:
        _Call.alive -= 1


@pytest.fixture(autouse=True)
def _collector_as_it_was() -> Iterator[None]:
    before = gc.get_threshold()
    yield
    gc.set_threshold(*before)
    gc.collect()


def _serve(while_it_serves: Callable[[], None]) -> None:
    def on_started() -> None:
        collector.exempt_what_is_there()
        while_it_serves()
        server.should_exit = True

    collector.set_pace(COLLECTOR_PACE)
    server = WorkerServer(
        uvicorn.Config(Starlette(), lifespan="off", log_config=None),
        socket.create_server(("127.0.0.1", 0)),
        Lifecycle(),
        Duties(reload=_nothing, on_started=on_started),
    )
    asyncio.run(server.serve())


async def _nothing() -> None:
    pass


def test_objects_made_at_the_start_are_not_collected_again() -> None:
    made = [[number] for number in range(100_000)]

    def look() -> None:
        assert len(gc.get_objects()) < len(made)

    _serve(look)


def test_cycles_that_outlive_young_collections_are_collected_all_the_same() -> None:
    def call_and_call() -> None:
        most, under_way = 0, deque[_Call](maxlen=_AT_ONCE)
        before = gc.get_stats()[2]["collections"]
        for _ in range(_CALLS):
            under_way.append(_Call())
            most = max(most, _Call.alive)
        assert gc.get_stats()[2]["collections"] > before
        # Each collection of the middle generation hands those under way to the oldest.
        assert most < _CALLS // 10

    _serve(call_and_call)
