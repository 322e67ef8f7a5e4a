"""What the soak calls growth."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from loadtests.soak.growth import MOST, measure
from loadtests.soak.readings import Files, Usage, files_of, usage_of
from loadtests.soak.series import Series

TIMES = [float(second) for second in range(40)]


def test_what_stays_has_not_grown() -> None:
    growth = measure("memory", TIMES, [100.0] * 40, judged=True)
    assert (growth.share, growth.per_hour, growth.is_too_much) == (0, 0, False)


def test_a_leak_is_found_and_its_pace_told() -> None:
    leaking = [1_000.0 + second for second in TIMES]
    growth = measure("memory", TIMES, leaking, judged=True)
    assert growth.share == pytest.approx(30 / 1_004.5)
    assert growth.per_hour == pytest.approx(3_600)
    assert growth.is_too_much


def test_single_high_readings_are_no_growth() -> None:
    readings = [1_000.0] * 40
    readings[35] = readings[38] = 5_000.0
    assert not measure("memory", TIMES, readings, judged=True).is_too_much


def test_one_descriptor_more_is_no_growth_and_two_are() -> None:
    for more, is_too_much in ((1, False), (2, True)):
        readings = [20.0] * 30 + [20.0 + more] * 10
        growth = measure("descriptors", TIMES, readings, judged=True)
        assert growth.share > MOST
        assert growth.is_too_much is is_too_much


def test_what_began_at_nothing_has_grown() -> None:
    growth = measure("files", TIMES, [0.0] * 20 + [9.0] * 20, judged=True)
    assert growth.is_too_much


def test_too_few_readings_are_no_result() -> None:
    with pytest.raises(ValueError, match="memory: 3 readings are too few"):
        measure("memory", TIMES[:3], [1.0] * 3, judged=True)


def test_the_warm_up_does_not_count_and_logs_may_grow() -> None:
    series = Series(warm_up=20.0)
    for at in range(40):
        warm = min(at, 20)
        series.note_usage(at, "verifier", Usage(3, 1_000 + warm * 50, 0, 9, 4))
        series.note_usage(at, "postgres", Usage(3, 1_000 + at * 50, 0, 9, 4))
        series.note_files(at, Files(5, 100, at * 10, at * 1_000))
        series.note_rows(at, {"sessions": at})
    found = {growth.name: growth for growth in series.growths()}
    assert found["verifier memory"].share == 0
    assert found["disk log_bytes"].share > MOST
    assert not any(growth.is_too_much for growth in found.values())
    judged = {name for name, growth in found.items() if growth.judged}
    assert judged == {
        "verifier memory",
        "verifier descriptors",
        "disk files",
        "disk file_bytes",
    }


def test_this_process_can_be_read() -> None:
    before = usage_of(os.getpid())
    assert before.processes >= 1
    assert before.memory >= before.private > 1_000_000
    with open(os.devnull):
        assert usage_of(os.getpid()).descriptors > before.descriptors


def test_files_are_counted_without_logs_and_database(tmp_path: Path) -> None:
    (tmp_path / "gatehouse-verifier").mkdir()
    names = ("a", "b.log", "issuer.db", "issuer.db-wal", "gatehouse-verifier/a.copy")
    for name in names:
        (tmp_path / name).write_bytes(b"1234")
    assert files_of(tmp_path) == Files(2, 4, 4, 4)
