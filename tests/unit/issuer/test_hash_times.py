"""The time that a failed login waits, from measured hashes (R32)."""

from __future__ import annotations

import pytest

from issuer.hashing.hash_times import LONGEST_WAIT, HashTimes
from issuer.hashing.hash_work import Family, Work, bcrypt_work

PRESENT = bcrypt_work(12)
ARGON2ID = Work(Family.ARGON2ID, 200_000)


@pytest.fixture
def times() -> HashTimes:
    return HashTimes(PRESENT)


def test_nothing_is_waited_for_while_nothing_was_measured(times: HashTimes) -> None:
    assert times.remaining(0.1) == 0
    assert times.unmeasured() == [PRESENT]


def test_a_quicker_hash_waits_for_the_rest_of_the_costliest(times: HashTimes) -> None:
    times.note(PRESENT, 0.4)
    assert times.remaining(0.1) == pytest.approx(0.3)
    assert times.remaining(0.4) == 0
    assert times.remaining(0.5) == 0


def test_a_costlier_stored_hash_of_the_family_is_scaled(times: HashTimes) -> None:
    times.expect([bcrypt_work(13)])
    times.note(PRESENT, 0.4)
    assert times.remaining(0.4) == pytest.approx(0.4)
    assert times.unmeasured() == []


def test_a_much_smaller_hash_is_no_estimate_of_a_larger(times: HashTimes) -> None:
    """5 ms of the scheduler's in a hash of 1 ms would be a second in one of 200 ms."""
    times.note(bcrypt_work(4), 0.005)
    assert times.unmeasured() == [PRESENT]
    assert times.remaining(0) == 0


def test_the_costliest_family_decides(times: HashTimes) -> None:
    times.expect([ARGON2ID])
    times.note(PRESENT, 0.4)
    assert times.unmeasured() == [ARGON2ID]
    times.note(ARGON2ID, 1.0)
    assert times.remaining(0.4) == pytest.approx(0.6)
    times.expect([])
    assert times.remaining(0.4) == 0


def test_our_own_cost_is_expected_with_any_stored_hash(times: HashTimes) -> None:
    times.expect([bcrypt_work(10)])
    assert times.is_expected(PRESENT)
    assert not times.is_expected(bcrypt_work(13))
    assert not times.is_expected(ARGON2ID)


def test_one_hash_that_was_interrupted_does_not_delay_all(times: HashTimes) -> None:
    for _ in range(31):
        times.note(PRESENT, 0.4)
    times.note(PRESENT, 300.0)
    assert times.remaining(0.4) == 0


def test_the_wait_follows_the_load_of_the_machine(times: HashTimes) -> None:
    for took, expected in ((0.4, 0.3), (0.8, 0.7), (0.4, 0.3)):
        for _ in range(64):
            times.note(PRESENT, took)
        assert times.remaining(0.1) == pytest.approx(expected)


def test_no_wait_is_longer_than_the_bound(times: HashTimes) -> None:
    times.note(PRESENT, 300.0)
    assert times.remaining(0.1) == LONGEST_WAIT
