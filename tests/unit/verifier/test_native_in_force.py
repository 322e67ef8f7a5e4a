"""Up to which position entries are in force in every gateway, and for how long."""

from __future__ import annotations

import asyncio

import pytest

from tests.support.clock import FakeClock
from verifier.check.trust import IssuerTrust
from verifier.native.in_force import (
    MAX_PROCESSES,
    InForce,
    Mark,
    Progress,
    TooManyProcessesError,
)
from verifier.native.window import CLOSED, RESERVE, Window, window_of

STALENESS = 30


class Site:
    """The ledger on a clock that the test moves, after its predecessor's windows."""

    def __init__(self) -> None:
        self.clock = FakeClock()
        self.in_force = InForce(self.clock.monotonic, STALENESS)
        assert self.in_force.awaited_processes == 1
        self.clock.advance(STALENESS)
        self.in_force.reached("e", 7)

    def connect(self, name: str, position: int = 0) -> None:
        """Connect a gateway process that has everything up to the position."""
        self.in_force.connected(name)
        self.in_force.sending(name, self.clock.monotonic() + STALENESS)
        self.in_force.proven(name, Mark("e", position))

    @property
    def position(self) -> int:
        return self.in_force.position("e")


def test_progress_of_each_process_is_its_own() -> None:
    site = Site()
    site.connect("one", 7)
    site.clock.advance(10)
    site.connect("two", 3)
    assert site.in_force.progress("one") == Progress(7, STALENESS - 10)
    assert site.in_force.progress("two") == Progress(3, STALENESS)
    site.clock.advance(STALENESS - 10)
    assert site.in_force.progress("one") == Progress(7, 0.0)
    site.clock.advance(STALENESS)
    assert site.in_force.progress("two") == Progress(3, 0.0)


def test_process_that_has_nothing_of_ours_is_nowhere() -> None:
    site = Site()
    assert site.in_force.progress("one") == Progress(0, 0.0)
    site.in_force.connected("one")
    assert site.in_force.progress("one") == Progress(0, 0.0)
    # Its window counts as soon as it is sent, its position when that is proven.
    site.in_force.sending("one", site.clock.monotonic() + STALENESS)
    assert site.in_force.progress("one") == Progress(0, STALENESS)


def test_progress_in_an_epoch_that_was_replaced_is_none() -> None:
    site = Site()
    site.connect("one", 7)
    site.in_force.reached("f", 2)
    assert site.in_force.progress("one").position == 0


def test_follower_waits_for_the_windows_of_the_one_before_it() -> None:
    clock = FakeClock()
    in_force = InForce(clock.monotonic, STALENESS)
    in_force.reached("e", 7)
    assert in_force.position("e") == 0
    clock.advance(STALENESS - 1)
    assert in_force.position("e") == 0
    clock.advance(1)
    assert in_force.position("e") == 7


def test_least_position_of_all_that_may_pass_requests_counts() -> None:
    site = Site()
    site.connect("one", 7)
    assert site.position == 7
    site.connect("two", 3)
    assert site.position == 3
    site.in_force.proven("two", Mark("e", 5))
    assert site.position == 5


def test_process_that_was_sent_nothing_does_not_count() -> None:
    site = Site()
    site.connect("one", 7)
    site.in_force.connected("two")
    assert site.position == 7
    site.in_force.sending("two", site.clock.monotonic() + 1)
    assert site.position == 0


def test_lost_process_counts_until_its_window_is_over() -> None:
    site = Site()
    site.connect("one", 5)
    site.in_force.disconnected("one")
    assert (site.position, site.in_force.reached_processes) == (5, 0)
    site.connect("one again", 7)
    assert (site.position, site.in_force.awaited_processes) == (5, 1)
    site.clock.advance(STALENESS - 1)
    assert site.position == 5
    site.clock.advance(1)
    assert (site.position, site.in_force.awaited_processes) == (7, 0)


def test_process_known_to_have_ended_counts_no_more() -> None:
    site = Site()
    site.connect("one", 5)
    site.in_force.ended("one")
    assert site.position == 7


def test_process_that_must_answer_counts_after_its_window_until_it_does() -> None:
    """HAProxy reads its clock once a turn: a worker that is stopped in one and goes on
    lets requests pass that came when its window was over.
    """
    site = Site()
    site.in_force = InForce(site.clock.monotonic, 0, must_answer=True)
    site.in_force.reached("e", 7)
    site.in_force.connected("one")
    # The process before us may have opened it.
    assert site.position == 0
    site.in_force.sending("one", site.clock.monotonic() + STALENESS)
    site.in_force.proven("one", Mark("e", 5))
    site.in_force.write_failed("one")
    site.in_force.disconnected("one")
    site.in_force.left("one")
    site.clock.advance(10 * STALENESS)
    assert (site.position, site.in_force.awaited_processes) == (5, 1)
    site.in_force.ended("one")
    assert (site.position, site.in_force.awaited_processes) == (7, 0)


def test_process_that_has_answered_everything_is_left_until_its_window_is_over() -> (
    None
):
    site = Site()
    site.in_force = InForce(site.clock.monotonic, 0, must_answer=True)
    site.in_force.reached("e", 7)
    site.connect("one", 5)
    assert site.in_force.has_proof("one")
    site.in_force.disconnected("one")
    site.in_force.left("one")
    assert site.position == 5
    site.clock.advance(STALENESS)
    assert site.position == 7


def test_position_in_another_epoch_is_not_in_force() -> None:
    site = Site()
    site.connect("one", 7)
    assert site.in_force.position("f") == 0
    site.in_force.ended("one")
    assert site.in_force.position("f") == 0


def test_processes_that_are_reached_are_bounded() -> None:
    site = Site()
    for n in range(MAX_PROCESSES):
        site.in_force.connected(f"p{n}")
    with pytest.raises(TooManyProcessesError):
        site.in_force.connected("one more")
    site.in_force.disconnected("p0")
    site.in_force.connected("one more")


def test_processes_that_cannot_be_reached_take_no_room() -> None:
    """An Envoy that restarts again and again is another process each time."""
    site = Site()
    for n in range(3 * MAX_PROCESSES):
        site.connect(f"p{n}", position=3 + n % 2)
        site.in_force.disconnected(f"p{n}")
    assert site.in_force.awaited_processes <= MAX_PROCESSES
    # What any of them lacks is not in force, until the last window is over.
    site.connect("newest", 7)
    assert site.position == 3
    site.clock.advance(STALENESS - 1)
    assert site.position == 3
    site.connect("newest", 7)
    site.clock.advance(1)
    assert site.position == 7


def test_folded_processes_of_two_epochs_are_nowhere() -> None:
    site = Site()
    for n in range(MAX_PROCESSES):
        site.in_force.connected(f"p{n}")
        site.in_force.sending(f"p{n}", site.clock.monotonic() + STALENESS)
        site.in_force.proven(f"p{n}", Mark("f" if n == 5 else "e", 7))
        site.in_force.disconnected(f"p{n}")
    site.connect("newest", 7)
    assert site.position == 0
    assert site.in_force.position("f") == 0


def test_write_without_a_window_leaves_that_of_before() -> None:
    site = Site()
    site.connect("one", 7)
    site.clock.advance(10)
    site.in_force.sending("one", site.clock.monotonic() + STALENESS)
    # Until the answer, it may have been sent.
    assert site.in_force.progress("one").window_left == STALENESS
    site.in_force.proven("one", Mark("e", 7), has_window=False, is_failing=True)
    assert site.in_force.progress("one").window_left == STALENESS - 10
    assert site.in_force.failing_processes == 1
    site.in_force.disconnected("one")
    site.clock.advance(STALENESS - 10)
    assert site.in_force.awaited_processes == 0


def test_write_that_may_have_been_sent_counts_later_too() -> None:
    site = Site()
    site.connect("one", 7)
    site.clock.advance(10)
    site.in_force.sending("one", site.clock.monotonic() + STALENESS)
    site.in_force.write_failed("one")
    site.clock.advance(10)
    site.in_force.sending("one", site.clock.monotonic() + STALENESS)
    site.in_force.write_failed("one", was_sent=False)
    assert site.in_force.progress("one").window_left == STALENESS - 10
    site.in_force.sending("one", site.clock.monotonic() + STALENESS)
    site.in_force.proven("one", Mark("e", 7), has_window=False)
    assert site.in_force.progress("one").window_left == STALENESS - 10
    assert site.in_force.failing_processes == 0


def test_window_of_a_name_of_before_counts_under_the_next() -> None:
    """A worker that is followed again, by rules of before: it is sent no window."""
    site = Site()
    site.connect("first", 3)
    site.in_force.disconnected("first")
    site.clock.advance(10)
    site.in_force.connected("again")
    site.in_force.sending("again", site.clock.monotonic() + STALENESS)
    site.in_force.proven("again", Mark("e", 7), has_window=False)
    assert site.in_force.progress("again").window_left == 0.0
    site.in_force.followed_again("first", "again")
    assert site.in_force.progress("again").window_left == STALENESS - 10
    # It is known to have everything, also the entries that "first" had not.
    assert site.position == 7
    site.in_force.reached("e", 8)
    site.in_force.disconnected("again")
    assert site.position == 7
    site.clock.advance(STALENESS - 10)
    assert site.position == 8


@pytest.mark.parametrize(
    ("first", "again", "least"),
    [
        (Mark("e", 3), Mark("e", 5), 3),
        (Mark("e", 5), Mark("e", 3), 3),
        (Mark("d", 9), Mark("e", 5), 0),
    ],
)
def test_process_that_was_left_again_is_as_far_as_when_it_was_less_far(
    first: Mark, again: Mark, least: int
) -> None:
    site = Site()
    for name, mark in (("first", first), ("again", again)):
        site.in_force.connected(name)
        ends = STALENESS if name == "first" else STALENESS - 10
        site.in_force.sending(name, site.clock.monotonic() + ends)
        site.in_force.proven(name, mark)
        site.in_force.disconnected(name)
    site.in_force.left_again("first", "again")
    assert site.in_force.awaited_processes == 1
    assert site.position == least
    site.clock.advance(STALENESS - 10)
    assert site.position == least
    site.clock.advance(10)
    assert site.position == 7


def test_many_that_come_and_go_hold_a_position_up_no_longer_than_their_windows() -> (
    None
):
    """Each time that some are folded, those of before end no later."""
    site = Site()
    for n in range(20 * MAX_PROCESSES):
        site.connect(f"p{n}", position=n)
        site.in_force.disconnected(f"p{n}")
        site.clock.advance(STALENESS / 200)
    site.in_force.reached("e", 20 * MAX_PROCESSES)
    # Of the last 200, it may be as if they had come up to a quarter of that before.
    assert 20 * MAX_PROCESSES - 250 <= site.position < 20 * MAX_PROCESSES - 195


async def test_wait_ends_when_the_position_is_in_force() -> None:
    site = Site()
    site.connect("one", 3)
    waiting = asyncio.create_task(site.in_force.wait("e", 7, 600))
    await asyncio.sleep(0)
    site.in_force.proven("one", Mark("e", 5))
    await asyncio.sleep(0)
    assert not waiting.done()
    site.in_force.proven("one", Mark("e", 7))
    await waiting


@pytest.mark.parametrize("turns", range(5))
async def test_wait_for_news_is_cancelled_also_when_news_come(turns: int) -> None:
    """A writer whose end was lost went on, and what had ended it waited for ever."""
    site = Site()
    waiting = asyncio.create_task(site.in_force.wait_for_news(600))
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    site.in_force.reached("e", 8)
    for _ in range(turns):
        await asyncio.sleep(0)
    was_done = waiting.done()
    waiting.cancel()
    await asyncio.wait([waiting])
    assert waiting.cancelled() is not was_done


async def test_wait_ends_with_its_time() -> None:
    site = Site()
    site.connect("one", 3)
    await site.in_force.wait("e", 7, 0.01)
    assert site.position == 3


@pytest.mark.parametrize(
    ("fresh_until", "keys_until", "expected"),
    [
        (130.0, 500.0, Window(9_999, 10_029, 130.0)),
        (500.0, 120.5, Window(9_999, 10_019, 120.5)),
        (101.0, 500.0, CLOSED),
        (500.0, 0.0, CLOSED),
    ],
)
def test_window_ends_early_and_with_what_is_too_old_first(
    fresh_until: float, keys_until: float, expected: Window
) -> None:
    trust = IssuerTrust(
        fresh_until=fresh_until, keys_until=keys_until, has_revocations=True
    )
    window = window_of(trust, 100.0, 10_000.0)
    assert window == expected
    assert window.is_open is (window != CLOSED)
    left = window.closes_at - 10_000
    assert left <= max(0, min(fresh_until, keys_until) - 100 - RESERVE)


def test_without_a_whole_list_no_window_is_open() -> None:
    trust = IssuerTrust(fresh_until=500.0, keys_until=500.0)
    assert window_of(trust, 100.0, 10_000.0) is CLOSED
