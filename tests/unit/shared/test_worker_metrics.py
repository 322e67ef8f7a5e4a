"""Workers' numbers are merged, and a dead worker's totals stay (R39, decision 0025)."""

from __future__ import annotations

import json
import logging
import os
import subprocess
import sys
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from prometheus_client.parser import text_string_to_metric_families

from shared.metrics.prometheus import Counter, Histogram, Registry
from shared.metrics.worker_metrics import MetricsBoard, WorkerMetrics, is_running

ROOT = Path(__file__).resolve().parents[3]


def samples(text: bytes) -> dict[str, float]:
    return {
        sample.name + "".join(sorted(sample.labels.values())): sample.value
        for family in text_string_to_metric_families(text.decode())
        for sample in family.samples
    }


@dataclass
class World:
    """The living processes of a test, and its time."""

    now: float = 100.0
    dead: set[int] = field(default_factory=set)


class Worker:
    """One worker as a test moves it; all of them are in this process."""

    def __init__(self, board: MetricsBoard, slot: int, world: World) -> None:
        registry = Registry()
        self.checks = Counter("checks", "Checks.", ["reason"], registry=registry)
        self.seconds = Histogram(
            "seconds", "Seconds.", buckets=(1, 2), registry=registry
        )
        self.facts = registry.gauge("facts", "Facts.", "sum")
        self.age = registry.gauge("age", "Age.", "max")
        self.position = registry.gauge("position", "Position.", "min", ("feed",))
        self.metrics = WorkerMetrics(
            registry,
            "gate",
            board.take_over(
                slot,
                pid=1_000 + slot,
                clock=lambda: world.now,
                is_alive=lambda pid: pid not in world.dead,
            ),
        )

    def show(self) -> dict[str, float]:
        return samples(self.metrics.render())


@pytest.fixture
def board() -> MetricsBoard:
    return MetricsBoard(4, 10_000)


def test_counters_and_histograms_are_added_and_gauges_merged_by_mode(
    board: MetricsBoard,
) -> None:
    world = World()
    one, other = Worker(board, 0, world), Worker(board, 3, world)
    for worker, amount in ((one, 3), (other, 4)):
        worker.checks.labels("expired").inc(amount)
        worker.seconds.observe(amount / 2)
        worker.facts.set(amount)
        worker.age.set(-amount)
        worker.position.labels("a").set(amount)
    one.position.labels("b").set(9)
    other.metrics.publish()
    assert one.show() == {
        "checks_totalexpired": 7,
        "seconds_bucket1.0": 0,
        "seconds_bucket2.0": 2,
        "seconds_bucket+Inf": 2,
        "seconds_count": 2,
        "seconds_sum": 3.5,
        "facts": 7,
        "age": -3,
        "positiona": 3,
        "positionb": 9,
        "gate_metrics_left_out": 0,
    }


def test_names_types_and_help_are_those_of_one_process(board: MetricsBoard) -> None:
    world = World()
    shared = Worker(board, 0, world)
    shared.checks.labels('a "quoted"\nreason').inc()
    shared.position.labels("a").set(1)
    registry = shared.metrics._registry
    alone = WorkerMetrics.__new__(WorkerMetrics)
    alone._registry, alone.slot = registry, None
    assert sorted(shared.metrics.render().splitlines()) == sorted(
        alone.render().splitlines()
    )


def test_one_process_shows_its_own_numbers() -> None:
    """And no second series per counter with its time of creation."""
    registry = Registry()
    metrics = WorkerMetrics(registry, "gate")
    Counter("checks", "Checks.", registry=registry).inc(2)
    metrics.publish()
    assert samples(metrics.render()) == {
        "checks_total": 2.0,
        "gate_metrics_left_out": 0.0,
    }


def test_a_dead_workers_totals_stay_and_its_gauges_end(board: MetricsBoard) -> None:
    world = World()
    one, doomed = Worker(board, 0, world), Worker(board, 1, world)
    doomed.checks.labels("expired").inc(4)
    doomed.facts.set(10)
    doomed.metrics.publish()
    assert one.show()["facts"] == 10
    world.dead.add(1_001)
    shown = one.show()
    assert (shown["checks_totalexpired"], shown["facts"]) == (4, 0)


def test_the_next_worker_of_a_slot_goes_on_from_there(board: MetricsBoard) -> None:
    """Again and again, and nothing is counted twice."""
    world = World()
    one = Worker(board, 0, world)
    for number in range(1, 6):
        successor = Worker(board, 1, world)
        assert one.show().get("checks_totalexpired", 0) == number - 1
        successor.metrics.publish()
        assert one.show().get("checks_totalexpired", 0) == number - 1
        successor.checks.labels("expired").inc()
        successor.metrics.publish()
        assert one.show()["checks_totalexpired"] == number
        assert successor.show()["checks_totalexpired"] == number


def test_the_gauges_of_a_worker_that_is_silent_for_long_end(
    board: MetricsBoard,
) -> None:
    """Another program may have its pid later."""
    world = World()
    one, silent = Worker(board, 0, world), Worker(board, 1, world)
    silent.facts.set(10)
    silent.metrics.publish()
    world.now += 59
    assert one.show()["facts"] == 10
    world.now += 1
    assert one.show()["facts"] == 0


def test_a_slot_that_is_not_there_is_refused(board: MetricsBoard) -> None:
    for slot in (-1, 4):
        with pytest.raises(IndexError):
            board.take_over(slot)


def test_a_value_that_is_not_finite_is_left_out(board: MetricsBoard) -> None:
    worker = Worker(board, 0, World())
    worker.age.set(float("nan"))
    worker.facts.set(float("inf"))
    assert not {"age", "facts"} & worker.show().keys()


def test_families_that_do_not_fit_are_left_out_and_logged_once(
    caplog: pytest.LogCaptureFixture,
) -> None:
    world = World()
    board = MetricsBoard(2, 1_000)
    one = Worker(board, 0, world)
    one.facts.set(3)
    for number in range(100):
        one.checks.labels(f"reason-{number:03}").inc()
    with caplog.at_level(logging.ERROR):
        one.metrics.publish()
        one.metrics.publish()
    shown = Worker(board, 1, world).show()
    assert not [name for name in shown if name.startswith("checks")]
    assert (shown["facts"], shown["gate_metrics_left_out"]) == (3, 1)
    assert [record.message for record in caplog.records] == ["metrics.left_out"]


def test_totals_that_no_longer_fit_stay_as_they_were(board: MetricsBoard) -> None:
    """They must not fall, not even for want of room."""
    world = World()
    board = MetricsBoard(2, 1_000)
    one, other = Worker(board, 0, world), Worker(board, 1, world)
    one.checks.labels("expired").inc(5)
    one.metrics.publish()
    for number in range(100):
        one.checks.labels(f"reason-{number:03}").inc()
    one.facts.set(3)
    one.metrics.publish()
    assert other.show()["checks_totalexpired"] == 5
    # Also for the next worker of the slot, which has room again.
    successor = Worker(board, 0, world)
    successor.checks.labels("expired").inc()
    successor.metrics.publish()
    assert other.show()["checks_totalexpired"] == 6


def test_gauges_that_do_not_fit_are_left_out() -> None:
    """An old value would be wrong, where an old total is only late."""
    world = World()
    board = MetricsBoard(2, 1_000)
    one = Worker(board, 0, world)
    one.checks.labels("expired").inc(5)
    one.position.labels("first").set(1)
    one.metrics.publish()
    for number in range(100):
        one.position.labels(f"feed-{number:03}").set(1)
    one.metrics.publish()
    shown = Worker(board, 1, world).show()
    assert not [name for name in shown if name.startswith("position")]
    assert shown["checks_totalexpired"] == 5


def test_the_older_of_two_renderings_is_not_shown(board: MetricsBoard) -> None:
    slots = [board.take_over(number) for number in range(2)]
    slots[0].write_page(5.0, b"new")
    slots[1].write_page(4.0, b"old")
    page = slots[1].read_page()
    assert page is not None
    assert page.payload == b"new"
    slots[1].write_page(6.0, b"x" * 10_001)
    assert slots[0].read_page() == page


def test_only_processes_that_run_are_running() -> None:
    done = subprocess.Popen([sys.executable, "-c", ""])
    done.wait()
    assert is_running(os.getpid())
    assert not is_running(done.pid)


# Real processes, forked as in life. In a process of their own, because the tests' own
# has threads. Each worker of slot 1 counts 1, publishes, and is killed without warning;
# the last but one before it has published.
FORKED = """
import json, os, signal, sys
from shared.metrics.prometheus import Counter, Registry
from shared.metrics.worker_metrics import MetricsBoard, WorkerMetrics

def worker(slot):
    registry = Registry()
    counter = Counter("checks", "Checks.", registry=registry)
    facts = registry.gauge("facts", "Facts.", "sum")
    metrics = WorkerMetrics(registry, "gate", board.take_over(slot))
    facts.set(10)
    return counter, metrics

board = MetricsBoard(2, 10_000)
_, scraped = worker(0)
shown = []
for publishes in (True, True, True, False, True):
    ready, end = os.pipe(), os.pipe()
    pid = os.fork()
    if not pid:
        counter, metrics = worker(1)
        counter.inc()
        if publishes:
            metrics.publish()
        os.write(ready[1], b"x")
        os.read(end[0], 1)
        os._exit(1)
    os.read(ready[0], 1)
    shown.append(scraped.render().decode())
    os.kill(pid, signal.SIGKILL)
    os.waitpid(pid, 0)
    shown.append(scraped.render().decode())
json.dump(shown, sys.stdout)
"""


@pytest.mark.parametrize("variable", ["", "PROMETHEUS_MULTIPROC_DIR"])
def test_killed_processes_leave_their_totals_to_the_next(
    tmp_path: Path, variable: str
) -> None:
    """The variable of prometheus_client does nothing, with any value."""
    missing = tmp_path / "missing"
    environment = {"PYTHONPATH": str(ROOT), "PATH": os.environ["PATH"]}
    if variable:
        environment |= {variable: str(missing), variable.lower(): str(missing)}
    done = subprocess.run(
        [sys.executable, "-c", FORKED],
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    shown = [samples(text.encode()) for text in json.loads(done.stdout)]
    totals = [each["checks_total"] for each in shown]
    # Counts not published before a kill are lost: at most those of a second.
    assert totals == [1, 1, 2, 2, 3, 3, 3, 3, 4, 4]
    facts = [each["facts"] for each in shown]
    assert facts == [20, 10, 20, 10, 20, 10, 10, 10, 20, 10]
    assert not missing.exists()
