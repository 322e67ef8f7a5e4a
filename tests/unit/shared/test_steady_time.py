"""The time to prune by: a wall clock that jumps ahead does not hurry it (R53)."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st

from shared.steady_time import HOLD, SteadyTime

START = 1_795_000_000


class Clocks:
    """A wall clock that can be set, and seconds that pass."""

    def __init__(self) -> None:
        self.error = 0
        self.passed = 0
        self.steady = SteadyTime(self.wall, lambda: 50 + self.passed)

    def wall(self) -> int:
        return START + self.error + self.passed

    def true_time(self) -> int:
        return START + self.passed


def test_it_follows_a_clock_that_is_right() -> None:
    clocks = Clocks()
    for _ in range(5):
        clocks.passed += 10_000
        clocks.error += 1
        assert clocks.steady.now() == clocks.wall()


def test_a_jump_ahead_counts_once_it_has_stood_for_longer_than_a_token_lives() -> None:
    clocks = Clocks()
    clocks.error = 86_400
    assert clocks.steady.now() == clocks.true_time()
    clocks.passed += HOLD - 1
    assert clocks.steady.now() == clocks.true_time()
    clocks.passed += 1
    assert clocks.steady.now() == clocks.wall()


def test_a_clock_that_is_put_back_is_followed_at_once() -> None:
    clocks = Clocks()
    clocks.error = 10 * 365 * 86_400
    clocks.passed += 60
    assert clocks.steady.now() == clocks.true_time()
    clocks.error = 0
    assert clocks.steady.now() == clocks.true_time()
    clocks.error = -3_600
    assert clocks.steady.now() == clocks.wall()


@settings(max_examples=200, deadline=None)
@given(st.lists(st.tuples(st.integers(0, 900), st.integers(-9_000, 9_000))))
def test_no_jump_hurries_it(steps: list[tuple[int, int]]) -> None:
    """It is never past the wall clock, and runs ahead of passing time by little.

    The wall clock is set anew in steps that each stand for less than a token lives.
    """
    clocks = Clocks()
    before = clocks.steady.now()
    stood = 0
    for passed, error in steps:
        stood = stood + passed if error == clocks.error else 0
        if stood >= HOLD:
            return
        clocks.passed += passed
        clocks.error = error
        now = clocks.steady.now()
        assert now <= clocks.wall()
        assert now - before <= passed + 121 or stood + passed >= HOLD
        before = now
