"""Background tasks: whatever a round raises, the next one comes, and the stop ends."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable

import pytest

from issuer.errors import UnavailableError
from issuer.foundation import BackgroundTask, end_tasks
from tests.support.processes import PATIENCE


async def run_rounds(
    outcomes: list[BaseException | None], every: float | None
) -> list[BaseException | None]:
    """Run a task whose rounds end in these ways; return those that were begun."""
    stopping, begun = asyncio.Event(), list[BaseException | None]()

    async def act() -> None:
        outcome = outcomes[len(begun)]
        begun.append(outcome)
        if len(begun) == len(outcomes):
            stopping.set()
        if outcome is not None:
            raise outcome

    running = asyncio.create_task(BackgroundTask(act, every).run(stopping))
    await asyncio.wait([running], timeout=PATIENCE)
    assert running.done()
    return begun


@pytest.mark.parametrize(
    "error",
    [
        pytest.param(UnavailableError(), id="the database is away"),
        pytest.param(RuntimeError("a mistake"), id="a mistake"),
        pytest.param(asyncio.CancelledError(), id="what it waits for is cancelled"),
    ],
)
@pytest.mark.parametrize("every", [0.0, None], ids=["rounds", "endless"])
async def test_a_failed_round_is_followed_by_the_next(
    error: BaseException, every: float | None, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.WARNING):
        begun = await run_rounds([error, error, None], every)
    assert begun == [error, error, None]
    assert len(caplog.records) == 2


async def test_an_endless_task_that_returns_is_not_begun_again() -> None:
    """`listen` returns at once on SQLite: there is nothing to do."""
    stopping, begun = asyncio.Event(), []

    async def act() -> None:
        begun.append(1)

    await asyncio.wait_for(BackgroundTask(act).run(stopping), PATIENCE)
    assert begun == [1]


async def test_the_first_round_comes_after_the_delay_and_none_after_a_stop() -> None:
    stopping, begun = asyncio.Event(), []

    async def act() -> None:
        begun.append(1)

    task = BackgroundTask(act, every=0.0, delay=PATIENCE)
    running = asyncio.create_task(task.run(stopping))
    await asyncio.sleep(0)
    assert not begun
    stopping.set()
    await asyncio.wait_for(running, PATIENCE)
    assert not begun


async def test_a_task_that_is_cancelled_ends() -> None:
    async def act() -> None:
        await asyncio.Event().wait()

    running = asyncio.create_task(BackgroundTask(act, every=0.0).run(asyncio.Event()))
    await asyncio.sleep(0)
    running.cancel()
    await asyncio.wait([running], timeout=PATIENCE)
    assert running.cancelled()


def begin(act: Callable[[], Awaitable[None]]) -> asyncio.Task[None]:
    async def run() -> None:
        await act()

    return asyncio.create_task(run())


async def test_the_stop_lets_a_round_end_and_cancels_one_that_hangs() -> None:
    ended, may_end = [], asyncio.Event()

    async def finish() -> None:
        await may_end.wait()
        ended.append("finished")

    async def hang() -> None:
        try:
            await asyncio.Event().wait()
        finally:
            ended.append("cancelled")

    async def fail() -> None:
        raise RuntimeError("a mistake")

    tasks = [begin(finish), begin(hang), begin(fail)]
    may_end.set()
    await end_tasks(tasks, patience=0.2)
    assert ended == ["finished", "cancelled"]
    with pytest.raises(RuntimeError):
        tasks[2].result()


async def test_a_task_that_ignores_its_cancellation_does_not_hold_up_the_stop(
    caplog: pytest.LogCaptureFixture,
) -> None:
    may_end = asyncio.Event()

    async def ignore() -> None:
        while not may_end.is_set():
            try:
                await may_end.wait()
            except asyncio.CancelledError:
                continue

    tasks = [begin(ignore)]
    await asyncio.sleep(0)
    try:
        async with asyncio.timeout(PATIENCE / 4):
            await end_tasks(tasks, patience=0.05)
        assert not tasks[0].done()
    finally:
        may_end.set()
        await asyncio.wait(tasks)
    assert [record.message for record in caplog.records] == ["background.not_stopped"]


async def test_without_tasks_there_is_nothing_to_end() -> None:
    await end_tasks([])
