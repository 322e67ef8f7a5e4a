"""How often something may be done: one moment, compared with both ends (R53)."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from issuer.errors import TooManyRequestsError
from issuer.storage.rate_limits import RateLimit

NOW = 1_795_353_633_123
FEW = RateLimit(3, 60)


def do(limit: RateLimit, kept: int | None, now: int) -> int:
    taken = limit.take(kept, now)
    limit.require(taken, now)
    return taken


def test_so_many_are_allowed_at_once_and_then_one_each_part_of_the_period() -> None:
    kept: int | None = None
    for _ in range(3):
        kept = do(FEW, kept, NOW)
    with pytest.raises(TooManyRequestsError) as refused:
        do(FEW, kept, NOW)
    assert refused.value.retry_after == 20
    kept = do(FEW, kept, NOW + 20_000)
    with pytest.raises(TooManyRequestsError):
        do(FEW, kept, NOW + 39_999)


def test_zero_is_no_limit() -> None:
    kept: int | None = None
    for _ in range(1_000):
        kept = do(RateLimit(0, 60), kept, NOW)


@settings(max_examples=200, deadline=None)
@given(
    st.integers(1, 100),
    st.integers(1, 3_600),
    st.integers(-(10**15), 10**15),
)
def test_a_wait_is_bounded_by_the_interval_and_the_clock_allowance(
    count: int, period: int, ahead: int
) -> None:
    """R53: for any clock at the time when the moment was kept.

    One interval, and at most half a period for another replica's clock. So it is at
    most the period, unless only one act is allowed in it.
    """
    limit = RateLimit(count, period)
    taken, wait = limit.take(NOW + ahead, NOW), 0
    try:
        limit.require(taken, NOW)
    except TooManyRequestsError as error:
        wait = error.retry_after
    allowance_ms = limit.horizon_ms - limit.window_ms
    assert 0 <= wait <= (limit.interval_ms + allowance_ms) / 1_000 + 1
    assert wait <= period + 1 or count == 1
    assert wait or NOW < taken <= NOW + limit.window_ms


@settings(max_examples=100, deadline=None)
@given(st.integers(1, 50), st.integers(1, 100), st.lists(st.integers(0, 30_000)))
def test_no_more_than_two_periods_worth_pass_in_one(
    count: int, period: int, steps: list[int]
) -> None:
    limit = RateLimit(count, period)
    kept, now, passed = None, NOW, list[int]()
    for step in steps:
        now += step
        try:
            kept = do(limit, kept, now)
        except TooManyRequestsError:
            continue
        passed.append(now)
        since = [at for at in passed if at > now - period * 1_000]
        assert len(since) <= 2 * count
