"""Hashing runs in a bounded pool with a bounded queue (R33)."""

from __future__ import annotations

import asyncio
import os
import sys
import threading
from collections.abc import Iterator

import pytest

from issuer.errors import InvalidCredentialsError, UnavailableError
from issuer.hashing.hashing_pool import NICENESS, HashingPool
from tests.support.processes import eventually


class Gauge:
    """Keeps the last report of the pool."""

    def __init__(self) -> None:
        self.waiting = 0
        self.busy = 0

    def __call__(self, waiting: int, busy: int) -> None:
        self.waiting, self.busy = waiting, busy

    async def is_idle(self) -> bool:
        return (self.waiting, self.busy) == (0, 0)


class Work:
    """Work that ends when it is let go."""

    def __init__(self) -> None:
        self.gate = threading.Event()

    def __call__(self) -> str:
        assert self.gate.wait(20)
        return "done"


@pytest.fixture
def work() -> Iterator[Work]:
    work = Work()
    yield work
    work.gate.set()


async def start(pool: HashingPool, work: Work, count: int) -> list[asyncio.Task[str]]:
    """Hand the work in `count` times and let each get as far as it comes."""
    tasks = [asyncio.create_task(pool.run(work)) for _ in range(count)]
    await asyncio.sleep(0)
    return tasks


async def test_a_full_queue_refuses_at_once(work: Work) -> None:
    """R33: two run, three wait, the sixth is turned away while nothing has ended."""
    gauge = Gauge()
    pool = HashingPool(workers=2, queue=3, on_change=gauge)
    tasks = await start(pool, work, 5)
    assert (gauge.waiting, gauge.busy) == (3, 2)
    with pytest.raises(UnavailableError) as refused:
        await pool.run(work)
    assert refused.value.retry_after > 0
    work.gate.set()
    assert await asyncio.gather(*tasks) == ["done"] * 5
    await eventually(gauge.is_idle)
    assert await pool.run(lambda: "again") == "again"


async def test_the_event_loop_goes_on_while_hashes_run(work: Work) -> None:
    """R33: refresh, JWKS, feed and health never wait behind them."""
    pool = HashingPool(workers=1, queue=0)
    (task,) = await start(pool, work, 1)
    for _ in range(100):
        await asyncio.sleep(0)
    assert not task.done()
    work.gate.set()
    assert await task == "done"


async def test_an_error_of_the_work_is_raised_and_frees_the_place() -> None:
    gauge = Gauge()
    pool = HashingPool(workers=1, queue=0, on_change=gauge)

    def refuse() -> None:
        raise InvalidCredentialsError(detail="wrong password")

    for _ in range(3):
        with pytest.raises(InvalidCredentialsError):
            await pool.run(refuse)
        await eventually(gauge.is_idle)


async def test_a_caller_that_leaves_frees_its_place_only_when_the_work_ends(
    work: Work,
) -> None:
    """R33: otherwise a client that hangs up and comes again fills the threads."""
    gauge = Gauge()
    pool = HashingPool(workers=1, queue=0, on_change=gauge)
    (task,) = await start(pool, work, 1)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    with pytest.raises(UnavailableError):
        await pool.run(work)
    work.gate.set()
    await eventually(gauge.is_idle)
    assert await pool.run(lambda: "next") == "next"


async def test_a_caller_that_leaves_the_queue_frees_its_place_at_once(
    work: Work,
) -> None:
    gauge = Gauge()
    pool = HashingPool(workers=1, queue=1, on_change=gauge)
    _running, waiting = await start(pool, work, 2)
    waiting.cancel()

    async def nobody_waits() -> bool:
        return gauge.waiting == 0

    await eventually(nobody_waits)
    assert gauge.busy == 1


async def test_a_place_that_is_held_counts_and_comes_free_unused() -> None:
    """R33: only a caller that will hash reads the account before the hash."""
    gauge = Gauge()
    pool = HashingPool(workers=1, queue=0, on_change=gauge)

    async def hold_and_fail() -> None:
        with pool.reserve():
            with pytest.raises(UnavailableError):
                await pool.run(lambda: "never")
            raise KeyError

    with pytest.raises(KeyError):
        await hold_and_fail()
    assert (gauge.waiting, gauge.busy) == (0, 0)
    assert await pool.run(lambda: "next") == "next"


async def test_a_place_is_good_for_one_call() -> None:
    pool = HashingPool(workers=1, queue=0)
    with pool.reserve() as place:
        assert await place.run(lambda: "once") == "once"
        with pytest.raises(RuntimeError):
            await place.run(lambda: "twice")


@pytest.mark.skipif(sys.platform != "linux", reason="threads have no priority there")
async def test_hashing_stands_back_behind_the_event_loop() -> None:
    """R33: with as many threads as processors a refresh would wait its turn."""

    def read_niceness() -> int:
        return os.getpriority(os.PRIO_PROCESS, threading.get_native_id())

    pool = HashingPool(workers=1, queue=0)
    assert await pool.run(read_niceness) == min(19, read_niceness() + NICENESS)
