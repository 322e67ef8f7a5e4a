"""Build and process in the metrics, of one worker and of all together (R39)."""

from __future__ import annotations

import os

from prometheus_client.parser import text_string_to_metric_families

from shared.distribution import VERSION
from shared.metrics.program_metrics import WorkerProcess, add_build_info
from shared.metrics.prometheus import Registry
from shared.metrics.worker_metrics import MetricsBoard, WorkerMetrics


def worker(board: MetricsBoard, slot: int) -> WorkerMetrics:
    registry = Registry()
    add_build_info(registry, "gatehouse_test", compiled="true")
    WorkerProcess(registry, "gatehouse_test", slot)
    return WorkerMetrics(registry, "gatehouse_test", board.take_over(slot))


def values(page: bytes) -> dict[tuple[str, str], float]:
    """Return the values by name and by the label `worker`."""
    return {
        (sample.name, sample.labels.get("worker", "")): sample.value
        for family in text_string_to_metric_families(page.decode())
        for sample in family.samples
    }


def test_r39_processes_are_shown_alone_and_together() -> None:
    board = MetricsBoard(3, 20_000)
    first, second = worker(board, 0), worker(board, 2)
    first.publish()
    second.publish()
    shown = values(first.render())
    for name in ("resident_memory_bytes", "open_fds", "max_fds"):
        each = [shown[f"gatehouse_test_worker_{name}", n] for n in ("0", "2")]
        assert shown[f"process_{name}", ""] == sum(each) > each[0] > 0
    each = [shown["gatehouse_test_worker_cpu_seconds_total", n] for n in ("0", "2")]
    assert 0 < shown["process_cpu_seconds_total", ""] <= sum(each) + 0.011
    # Both are this process, and the numbers are those of the system.
    assert shown["process_max_fds", ""] == 2 * os.sysconf("SC_OPEN_MAX")
    assert shown["process_start_time_seconds", ""] < 2e9


def test_r39_the_build_is_always_one() -> None:
    board = MetricsBoard(2, 20_000)
    for slot in (0, 1):
        worker(board, slot).publish()
    page = worker(board, 0).render().decode()
    (line,) = [
        x for x in page.splitlines() if x.startswith("gatehouse_test_build_info")
    ]
    assert f'version="{VERSION}"' in line
    assert 'compiled="true"' in line
    assert line.endswith(" 1.0")
