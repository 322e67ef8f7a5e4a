"""Metrics of several workers added up, right also after a worker's death (R39).

prometheus_client keeps each worker's numbers in files of a shared directory, and
whichever worker is scraped adds them up. The directory's variable must be set before
prometheus_client is imported for the first time: the serving parent sees to it.
"""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

from prometheus_client import (
    CollectorRegistry,
    disable_created_metrics,
    generate_latest,
)
from prometheus_client.mmap_dict import MmapedDict
from prometheus_client.multiprocess import MultiProcessCollector

#: prometheus_client's own switch for several processes.
VARIABLE: Final = "PROMETHEUS_MULTIPROC_DIR"
#: The content type of `render`.
CONTENT_TYPE: Final = "text/plain; version=0.0.4; charset=utf-8"

# prometheus_client ships these three without annotations.
_collect_files: Final[Any] = MultiProcessCollector
_open_values: Final[Any] = MmapedDict
_disable_created: Final[Any] = disable_created_metrics

# A second series per counter with its birthday: noise, and not there with several
# workers.
_disable_created()

_LOCK_FILE: Final = "fold.lock"
#: Stands in a file name where a worker's pid stands otherwise.
_FOLDED: Final = "folded"


def render(registry: CollectorRegistry) -> bytes:
    """Return the metrics in Prometheus' text format, of all workers together.

    Args:
        registry: this process's metrics, used when there is only one process.

    Raises:
        OSError: when the directory shared by the workers cannot be read.
    """
    directory = os.environ.get(VARIABLE)
    if not directory:
        return generate_latest(registry)
    together = CollectorRegistry()
    with _locked(Path(directory), fcntl.LOCK_SH):
        _collect_files(together, path=directory)
        return generate_latest(together)


def fold_dead_worker(directory: Path, pid: int) -> None:
    """Add a dead worker's counts to the folded file and remove its files (R39).

    Without folding the directory grows by a set of files per worker that ever lived;
    with mere removal counters would fall. Counters and histogram buckets are stored as
    plain sums, so adding them key by key is right. Live gauges end with their worker.

    Raises:
        OSError: when the directory cannot be written.
    """
    with _locked(directory, fcntl.LOCK_EX):
        for path in sorted(directory.glob(f"*_{pid}.db")):
            metric_type = path.name.split("_", 1)[0]
            if metric_type != "gauge":
                _add_up(path, directory / f"{metric_type}_{_FOLDED}.db")
            path.unlink()


def _add_up(source: Path, target: Path) -> None:
    folded = _open_values(str(target))
    try:
        for key, value, timestamp, _ in _open_values.read_all_values_from_file(
            str(source)
        ):
            total = folded.read_value(key)[0] + value
            folded.write_value(key, total, timestamp)
    finally:
        folded.close()


@contextmanager
def _locked(directory: Path, mode: int) -> Iterator[None]:
    """Keep scrapes from seeing a worker's counts twice or not at all while folded."""
    with (directory / _LOCK_FILE).open("a") as lock:
        fcntl.flock(lock, mode)
        yield
