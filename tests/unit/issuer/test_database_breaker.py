"""While the database is away, requests fail without a wait (R38)."""

from __future__ import annotations

import pytest

from issuer.errors import ConflictError, DatabaseAwayError, UnavailableError
from issuer.storage.database_breaker import DatabaseBreaker
from tests.support.processes import wait_until

THRESHOLD = 5


def use(breaker: DatabaseBreaker, error: Exception | None = None) -> None:
    with breaker.guard():
        if error is not None:
            raise error


def fail(breaker: DatabaseBreaker) -> None:
    with pytest.raises(DatabaseAwayError):
        use(breaker, DatabaseAwayError(detail="away"))


def opened() -> DatabaseBreaker:
    breaker = DatabaseBreaker()
    for _ in range(THRESHOLD):
        fail(breaker)
    return breaker


def test_it_opens_after_failures_in_a_row_and_refuses_at_once() -> None:
    breaker = DatabaseBreaker()
    for _ in range(THRESHOLD - 1):
        fail(breaker)
    assert not breaker.is_open
    use(breaker)
    for _ in range(THRESHOLD):
        assert not breaker.is_open
        fail(breaker)
    assert breaker.is_open
    with pytest.raises(DatabaseAwayError) as caught:
        use(breaker, AssertionError("let through"))
    assert caught.value.detail == "away", "the cause is told, not the breaker"
    assert caught.value.retry_after == 1


@pytest.mark.parametrize("error", [UnavailableError, ConflictError])
def test_errors_unrelated_to_the_database_count_neither_way(
    error: type[Exception],
) -> None:
    """Under load the pool is empty although the database is there."""
    breaker = DatabaseBreaker()
    for _ in range(3 * THRESHOLD):
        with pytest.raises(error):
            use(breaker, error())
    assert not breaker.is_open
    for _ in range(THRESHOLD - 1):
        fail(breaker)
    with pytest.raises(error):
        use(breaker, error())
    fail(breaker)
    assert breaker.is_open


def test_one_at_a_time_finds_out_and_closes_it() -> None:
    breaker = opened()

    def is_let_through() -> bool:
        try:
            with breaker.guard():
                with pytest.raises(DatabaseAwayError):
                    use(breaker)
                return True
        except DatabaseAwayError:
            return False

    wait_until(is_let_through)
    assert not breaker.is_open
    use(breaker)


def test_a_trial_that_fails_opens_it_for_another_second() -> None:
    breaker = opened()

    def is_tried() -> bool:
        with pytest.raises(DatabaseAwayError) as caught:
            use(breaker, DatabaseAwayError(detail="still away"))
        return caught.value.detail == "still away"

    wait_until(is_tried)
    with pytest.raises(DatabaseAwayError) as caught:
        use(breaker, AssertionError("let through"))
    assert caught.value.detail == "still away"
