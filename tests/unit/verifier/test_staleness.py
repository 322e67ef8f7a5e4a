"""Fresh, late, stale: one warning per change, and nothing in between."""

from __future__ import annotations

import time
from pathlib import Path

import pytest

from verifier.sync.clock import boot_identity, boottime, whole_seconds_up
from verifier.sync.feed import FEED_HOLD
from verifier.sync.staleness import (
    FRESH_FOR,
    SourceStatus,
    Staleness,
    StalenessWatch,
    staleness_of,
)


@pytest.mark.parametrize(
    ("asked_at", "fresh_until", "state"),
    [
        (100.0, 130.0, Staleness.FRESH),
        (88.0, 118.0, Staleness.FRESH),
        (87.9, 117.9, Staleness.LATE),
        (70.1, 100.1, Staleness.LATE),
        (70.0, 100.0, Staleness.STALE),
        (None, 0.0, Staleness.STALE),
        (99.0, 0.0, Staleness.STALE),
    ],
)
def test_the_state_follows_from_age_and_bound(
    asked_at: float | None, fresh_until: float, state: Staleness
) -> None:
    status = SourceStatus(last_success=asked_at)
    assert staleness_of(status, fresh_until, 100.0) is state


def test_an_idle_feed_that_works_is_never_called_late() -> None:
    """Each answer is held, and its age counts from the sending: twice the hold, and a
    second or so for the way and for a busy machine."""
    assert FRESH_FOR >= 2 * FEED_HOLD + 1
    asked_at = 100.0
    next_answer_comes_at = asked_at + FEED_HOLD + FEED_HOLD + 0.08
    status = SourceStatus(last_success=asked_at)
    assert staleness_of(status, 130.0, next_answer_comes_at) is Staleness.FRESH


def test_each_change_is_logged_once(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO")
    watch = StalenessWatch()
    for state in (2, 2, 0, 0, 1, 1, 1, 2, 2, 0):
        watch.update(Staleness(state))
    shown = [(r.levelname, r.fields["state"], r.fields["was"]) for r in caplog.records]
    assert shown == [
        ("INFO", "fresh", "stale"),
        ("WARNING", "late", "fresh"),
        ("ERROR", "stale", "late"),
        ("INFO", "fresh", "stale"),
    ]


def test_the_clock_counts_from_the_boot_and_is_the_same_for_every_process() -> None:
    assert abs(boottime() - time.clock_gettime(time.CLOCK_BOOTTIME)) < 1
    assert boot_identity() == boot_identity()


def test_platform_without_boot_id_or_namespace(tmp_path: Path) -> None:
    away = tmp_path / "away"
    assert boot_identity(away, away) == ""
    boot_id = tmp_path / "boot_id"
    boot_id.write_text("an-id\n")
    assert boot_identity(boot_id, away) == "an-id"
    away.symlink_to("time:[1]")
    assert boot_identity(boot_id, away) == "an-id time:[1]"


def test_a_bound_is_rounded_up() -> None:
    assert [whole_seconds_up(s) for s in (11, 11.0, 11.001)] == [11, 11, 12]
