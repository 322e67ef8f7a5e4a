"""R59: a process without free descriptors, or that drops log lines, reports it."""

from __future__ import annotations

import logging
import resource
import subprocess
import sys
from pathlib import Path

import pytest

from shared.shortages import LOG_PERIOD, Shortages, count_descriptors

ROOT = Path(__file__).resolve().parents[3]


class World:
    """The time, the descriptors and the dropped lines of a test."""

    def __init__(self) -> None:
        self.now, self.used, self.limit, self.dropped = 100, 5, 1_000, 0
        self.shortages = Shortages(
            lambda: self.now,
            lambda: self.used,
            lambda: self.limit,
            lambda: self.dropped,
        )

    def look(self) -> bool:
        self.shortages.look()
        return self.shortages.has_no_descriptors


@pytest.mark.parametrize(
    ("used", "limit", "is_exhausted"),
    [
        (5, 1_000, False),
        (949, 1_000, False),
        (950, 1_000, True),
        (1_000, 1_000, True),
        (0, 1_000, False),
        (100_000, -1, False),
    ],
)
def test_descriptors_are_exhausted_before_the_last_one(
    used: int, limit: int, is_exhausted: bool
) -> None:
    world = World()
    world.used, world.limit = used, limit
    assert world.look() is is_exhausted


def test_it_ends_when_descriptors_are_free_again() -> None:
    world = World()
    world.used = 1_000
    assert world.look()
    world.used = 10
    assert not world.look()


def test_exhausted_descriptors_are_logged_at_a_bounded_rate(
    caplog: pytest.LogCaptureFixture,
) -> None:
    """Also when they come and go."""
    world = World()
    for _ in range(int(LOG_PERIOD)):
        for world.used in (1_000, 10):
            world.look()
        world.now += 1
    assert [record.message for record in caplog.records] == ["descriptors.exhausted"]
    assert caplog.records[0].levelno == logging.ERROR
    world.used = 1_000
    world.look()
    assert len(caplog.records) == 2


def test_dropped_lines_are_a_warning_for_a_minute() -> None:
    world = World()
    world.look()
    assert world.shortages.warnings == []
    world.dropped = 3
    world.look()
    assert world.shortages.warnings == ["log_lines_dropped"]
    world.now += 59
    world.look()
    assert world.shortages.has_dropped_lines
    world.now += 1
    world.look()
    assert world.shortages.warnings == []


def test_open_descriptors_are_counted() -> None:
    before = count_descriptors()
    with Path(__file__).open(), Path(__file__).open():
        assert count_descriptors() == before + 2


# In a process of its own: the tests' own needs its descriptors.
FULL = """
import os, resource, sys
from shared import shortages
resource.setrlimit(resource.RLIMIT_NOFILE, (40, 40))
if sys.argv[1] == "old":
    # Before Linux 6.2 the size has no meaning.
    class Unsized:
        st_size = 0
    os.stat = lambda path: Unsized
try:
    while True:
        os.dup(0)
except OSError:
    print(shortages.count_descriptors())
os.close(39)
os.close(38)
print(shortages.count_descriptors())
"""


@pytest.mark.parametrize("kernel", ["new", "old"])
def test_they_are_counted_when_none_is_left(kernel: str) -> None:
    command = [sys.executable, "-c", FULL, kernel]
    done = subprocess.run(
        command, cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    full, two_less = map(int, done.stdout.split())
    assert full == 40
    # The older way opens one to count them.
    assert two_less in {38, 39}


RAISED = """
import resource
from shared.shortages import raise_descriptor_limit
resource.setrlimit(resource.RLIMIT_NOFILE, (64, 256))
raise_descriptor_limit()
raise_descriptor_limit()
print(resource.getrlimit(resource.RLIMIT_NOFILE))
"""


def test_the_soft_limit_is_raised_to_the_hard_one() -> None:
    done = subprocess.run(
        [sys.executable, "-c", RAISED],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout.strip() == "(256, 256)"
    assert resource.getrlimit(resource.RLIMIT_NOFILE)[1] != 256
