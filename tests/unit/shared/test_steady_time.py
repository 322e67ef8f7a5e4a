"""The time to prune by: a wall clock that jumps ahead does not hurry it (R53)."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st

from shared.claims import CLOCK_ALLOWANCE
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


@settings(max_examples=300, deadline=None)
@given(st.lists(st.tuples(st.integers(0, 900), st.integers(-9_000, 9_000))))
def test_no_jump_hurries_it(steps: list[tuple[int, int]]) -> None:
    """It is never past the wall clock, and leaps only when a jump has stood for long.

    The wall clock is set anew at each step, by anything.
    """
    clocks = Clocks()
    before, followed_at = clocks.steady.now(), 0
    for passed, error in steps:
        clocks.passed += passed
        clocks.error = error
        now = clocks.steady.now()
        assert now <= clocks.wall()
        if now - before > passed + CLOCK_ALLOWANCE:
            assert clocks.passed - followed_at >= HOLD
        if now == clocks.wall():
            followed_at = clocks.passed
        before = now
