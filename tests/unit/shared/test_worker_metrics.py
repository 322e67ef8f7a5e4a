"""Workers' numbers are added up, and a dead worker's sums stay (R39)."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from prometheus_client import CollectorRegistry, Counter
from prometheus_client.mmap_dict import MmapedDict
from prometheus_client.parser import text_string_to_metric_families

from shared import worker_metrics

# prometheus_client decides at its import whether there are several processes: so a
# worker is a process, as in life.
WORKER = """
import os, sys
from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram
registry = CollectorRegistry()
checks = Counter("checks", "Checks.", ["reason"], registry=registry)
checks.labels("expired").inc(int(sys.argv[1]))
seconds = Histogram("seconds", "Seconds.", buckets=(1, 2), registry=registry)
seconds.observe(1.5)
facts = Gauge("facts", "Facts.", registry=registry, multiprocess_mode="livesum")
facts.set(10)
print(os.getpid())
"""


def work(directory: Path, checks: int) -> int:
    """Run a worker to its end; return its pid."""
    done = subprocess.run(
        [sys.executable, "-c", WORKER, str(checks)],
        env={**os.environ, worker_metrics.VARIABLE: str(directory)},
        capture_output=True,
        text=True,
        check=True,
    )
    return int(done.stdout)


def samples(text: bytes) -> dict[str, float]:
    return {
        sample.name + "".join(sorted(sample.labels.values())): sample.value
        for family in text_string_to_metric_families(text.decode())
        for sample in family.samples
    }


def scrape(directory: Path) -> dict[str, float]:
    """Render as a worker would, whose environment names the directory."""
    os.environ[worker_metrics.VARIABLE] = str(directory)
    try:
        return samples(worker_metrics.render(CollectorRegistry()))
    finally:
        del os.environ[worker_metrics.VARIABLE]


def test_folding_dead_workers_keeps_every_sum_and_no_file_of_theirs(
    tmp_path: Path,
) -> None:
    first, second = work(tmp_path, 3), work(tmp_path, 4)
    together = scrape(tmp_path)
    assert together["checks_totalexpired"] == 7
    assert together["seconds_count"] == 2
    assert together["facts"] == 20
    for pid in (first, second):
        worker_metrics.fold_dead_worker(tmp_path, pid)
    assert list(tmp_path.glob(f"*_{first}.db")) == []
    assert list(tmp_path.glob(f"*_{second}.db")) == []
    folded = scrape(tmp_path)
    sums = {name: value for name, value in together.items() if name != "facts"}
    assert sums.items() <= folded.items()
    assert folded.get("facts", 0) == 0


# prometheus_client ships it without annotations.
VALUES: Any = MmapedDict


def write_counter(path: Path, value: float) -> None:
    values = VALUES(str(path))
    values.write_value("key", value, 0.0)
    values.close()


def read_counter(path: Path) -> float:
    rows = VALUES.read_all_values_from_file(str(path))
    return float(sum(value for _, value, _, _ in rows))


def test_folding_twice_adds_once(tmp_path: Path) -> None:
    write_counter(tmp_path / "counter_7.db", 5.0)
    worker_metrics.fold_dead_worker(tmp_path, 7)
    worker_metrics.fold_dead_worker(tmp_path, 7)
    assert read_counter(tmp_path / "counter_folded.db") == 5.0


def test_only_the_dead_workers_files_are_folded(tmp_path: Path) -> None:
    for pid in (7, 17, 70):
        write_counter(tmp_path / f"counter_{pid}.db", 1.0)
    worker_metrics.fold_dead_worker(tmp_path, 7)
    assert read_counter(tmp_path / "counter_folded.db") == 1.0
    assert {p.name for p in tmp_path.glob("counter_*")} == {
        "counter_17.db",
        "counter_70.db",
        "counter_folded.db",
    }


def test_a_missing_directory_is_an_error_of_its_own(tmp_path: Path) -> None:
    with pytest.raises(OSError, match="fold"):
        worker_metrics.fold_dead_worker(tmp_path / "none", 7)


def test_one_process_shows_its_own_numbers() -> None:
    """And no second series per counter with its birthday."""
    registry = CollectorRegistry()
    Counter("checks", "Checks.", registry=registry).inc(2)
    shown = samples(worker_metrics.render(registry))
    assert shown == {"checks_total": 2.0}
