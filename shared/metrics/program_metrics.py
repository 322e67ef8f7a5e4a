"""What both programs say about themselves: their build, and their processes (R39).

The names are those that prometheus_client and other exporters use, so that dashboards
for processes work as they are.
"""

from __future__ import annotations

import platform
from collections.abc import Iterator
from typing import Final

from shared.distribution import VERSION
from shared.metrics.prometheus import (
    CounterMetricFamily,
    GaugeMetricFamily,
    Metric,
    Mode,
    ProcessCollector,
    Registry,
)

#: How the numbers of several workers become one: together they take so much, and they
#: have run since the first one started.
_MODES: Final[dict[str, Mode]] = {
    "process_virtual_memory_bytes": "sum",
    "process_resident_memory_bytes": "sum",
    "process_start_time_seconds": "min",
    "process_open_fds": "sum",
    "process_max_fds": "sum",
}
#: Those that are shown of each worker as well: one worker in trouble is not seen in a
#: sum.
_OF_EACH: Final = {
    "process_cpu_seconds": "cpu_seconds",
    "process_resident_memory_bytes": "resident_memory_bytes",
    "process_open_fds": "open_fds",
    "process_max_fds": "max_fds",
}


def add_build_info(registry: Registry, prefix: str, **more: str) -> None:
    """Add a gauge that is always 1, with the versions in its labels.

    Args:
        registry: the program's metrics.
        prefix: `gatehouse_issuer` or `gatehouse_verifier`.
        more: further labels.
    """
    labels = {"version": VERSION, "python": platform.python_version(), **more}
    info = registry.gauge(
        f"{prefix}_build_info",
        "Always 1; the build is in the labels.",
        "max",
        tuple(labels),
    )
    info.labels(**labels).set(1)


class WorkerProcess:
    """The numbers of this worker's process, read when they are collected.

    Args:
        registry: the worker's metrics, which it joins.
        prefix: `gatehouse_issuer` or `gatehouse_verifier`.
        worker: its number among the workers, from 0.
    """

    def __init__(self, registry: Registry, prefix: str, worker: int) -> None:
        self._prefix = prefix
        self._worker = str(worker)
        # It joins no registry: this object passes its families on.
        self._process = ProcessCollector(registry=None)
        registry.modes |= _MODES
        registry.register(self)

    def collect(self) -> Iterator[Metric]:
        """Yield each family of the process, and some once more with the worker.

        A total of the worker's number goes on when another process takes its place.
        """
        for family in self._process.collect():
            yield family
            name = _OF_EACH.get(family.name)
            if name is not None:
                yield self._of_worker(family, name)

    def _of_worker(self, family: Metric, name: str) -> Metric:
        is_total = family.type == "counter"
        make = CounterMetricFamily if is_total else GaugeMetricFamily
        text = f"{family.documentation.rstrip('.')}, of one worker."
        of_worker = make(f"{self._prefix}_worker_{name}", text, labels=["worker"])
        of_worker.add_metric([self._worker], family.samples[0].value)
        return of_worker
