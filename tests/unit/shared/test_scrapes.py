"""Scrapes share one rendering a second, and never hold the event loop (R47)."""

from __future__ import annotations

import asyncio
import threading
from typing import Any, cast

import pytest

from shared.metrics.prometheus import Counter, Registry
from shared.metrics.scrapes import Scrapes
from shared.metrics.worker_metrics import MetricsBoard, TakenSlot, WorkerMetrics


class Rendering:
    """Metrics that count their renderings, and wait while the test holds them."""

    def __init__(self, slot: TakenSlot | None = None) -> None:
        self.slot = slot
        self.rendered = 0
        self.published = 0
        self.threads: set[int] = set()
        self.may_go_on = threading.Event()
        self.may_go_on.set()
        self.error: Exception | None = None

    def render(self) -> bytes:
        self.rendered += 1
        self.threads.add(threading.get_ident())
        self.may_go_on.wait()
        if self.error is not None:
            raise self.error
        return b"page %d" % self.rendered

    def publish(self) -> None:
        self.published += 1
        self.threads.add(threading.get_ident())
        if self.error is not None:
            raise self.error


class World:
    """A worker's scrapes at a time that the test sets."""

    def __init__(self, rendering: Rendering, now: list[int]) -> None:
        self.now = now
        self.rendering = rendering
        self.prepared: set[int] = set()
        self.looks = 0
        self.scrapes = Scrapes(
            cast(WorkerMetrics, rendering),
            lambda: self.prepared.add(threading.get_ident()),
            beside=self.look,
            clock=lambda: self.now[0],
        )

    def look(self) -> None:
        self.looks += 1


@pytest.fixture
def world() -> World:
    return World(Rendering(), [100])


async def test_all_scrapes_of_a_second_share_one_rendering(world: World) -> None:
    assert {await world.scrapes.body() for _ in range(50)} == {b"page 1"}
    world.now[0] += 1
    assert {await world.scrapes.body() for _ in range(50)} == {b"page 2"}
    assert world.rendering.rendered == 2


async def test_scrapes_that_come_at_once_wait_for_one_rendering(world: World) -> None:
    """And the loop goes on meanwhile, for the rendering is in another thread."""
    world.rendering.may_go_on.clear()
    scrapes = [asyncio.create_task(world.scrapes.body()) for _ in range(200)]
    for _ in range(10):
        await asyncio.sleep(0)
    assert not any(scrape.done() for scrape in scrapes)
    world.rendering.may_go_on.set()
    assert set(await asyncio.gather(*scrapes)) == {b"page 1"}
    assert world.prepared == {threading.get_ident()}
    assert threading.get_ident() not in world.rendering.threads


async def test_a_client_that_goes_does_not_end_the_rendering_of_the_others(
    world: World,
) -> None:
    world.rendering.may_go_on.clear()
    first, second = (asyncio.create_task(world.scrapes.body()) for _ in range(2))
    await asyncio.sleep(0)
    first.cancel()
    await asyncio.wait([first])
    world.rendering.may_go_on.set()
    assert await second == b"page 1"


async def test_a_rendering_that_fails_is_tried_again(world: World) -> None:
    world.rendering.error = ValueError("broken")
    with pytest.raises(ValueError, match="broken"):
        await world.scrapes.body()
    world.rendering.error = None
    assert await world.scrapes.body() == b"page 2"


async def test_publishing_that_fails_is_logged_and_raises_nothing(
    world: World, caplog: pytest.LogCaptureFixture
) -> None:
    """The beat that publishes does more than that."""
    world.rendering.error = ValueError("broken")
    await world.scrapes.publish()
    assert [record.message for record in caplog.records] == ["metrics.not_published"]
    world.rendering.error = None
    await world.scrapes.publish()
    assert (world.rendering.published, world.looks) == (2, 2)
    assert threading.get_ident() not in world.rendering.threads


async def test_the_end_publishes_once_more(world: World) -> None:
    await world.scrapes.close()
    assert world.rendering.published == 1


async def test_workers_share_the_rendering_of_a_second() -> None:
    """Else the numbers could fall between scrapes that two workers answer."""
    board, now = MetricsBoard(3, 1_000), [100]
    workers = [World(Rendering(board.take_over(n)), now) for n in range(3)]
    workers[0].rendering.rendered = 10
    assert await workers[0].scrapes.body() == b"page 11"
    assert {await worker.scrapes.body() for worker in workers} == {b"page 11"}
    now[0] += 1
    assert await workers[1].scrapes.body() == b"page 1"
    assert {await worker.scrapes.body() for worker in workers} == {b"page 1"}
    assert [worker.rendering.rendered for worker in workers] == [11, 1, 0]


async def test_numbers_do_not_fall_from_worker_to_worker() -> None:
    """R39."""
    board, now = MetricsBoard(2, 10_000), [100]
    counters: list[Any] = []
    scrapes = []
    for slot in range(2):
        registry = Registry()
        counters.append(Counter("checks", "Checks.", registry=registry))
        metrics = WorkerMetrics(registry, "gate", board.take_over(slot))
        scrapes.append(
            Scrapes(metrics, int, beside=int, clock=lambda: now[0])  # type: ignore[arg-type]
        )
    seen = []
    for step in range(40):
        counters[step % 2].inc()
        page = await scrapes[step // 3 % 2].body()
        (line,) = [x for x in page.splitlines() if x.startswith(b"checks_total")]
        seen.append(float(line.split()[1]))
        now[0] += step % 5 == 0
    assert seen == sorted(seen)
    assert seen[-1] > 20
