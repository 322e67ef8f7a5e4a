"""The day of the load: its shape, its forgeries and what is recorded of it."""

from __future__ import annotations

import jwt
import pytest

from loadtests.day.forgeries import FORGERIES, end_of
from loadtests.day.kinds import REFUSED, WORKED, WRONG, kind_of, refusals_in
from loadtests.day.shape import DAY, begins, phase_at, users_at
from tests.support.fixed_key import FixedKey

KEY = FixedKey(7)
CLAIMS = {"sub": "someone", "scope": "orders:read", "exp": 2_000_000_000}


def token() -> str:
    headers = {"kid": "k" * 43, "typ": "at+jwt"}
    return jwt.encode(CLAIMS, KEY.private_key, "RS256", headers=headers)


def test_a_day_has_peaks_in_the_morning_and_the_afternoon_and_few_users_at_night() -> (
    None
):
    hours = [users_at(hour / 24, 50) for hour in range(24)]
    assert hours[:7] == [10] * 7
    assert hours[9] == max(hours) == 50
    assert hours[13] < 30 < hours[16]
    assert hours[23] < 20


def test_there_is_always_a_user_and_the_day_ends_as_it_began() -> None:
    assert all(users_at(share / 100, 1) == 1 for share in range(101))
    assert users_at(1.0, 50) == users_at(0.0, 50)


def test_phases_follow_each_other() -> None:
    assert [name for _, name in begins()] == [phase.name for phase in DAY]
    for share, name in begins():
        assert phase_at(share + 1e-6) == name
    assert phase_at(1.0) == DAY[-1].name


@pytest.mark.parametrize("forge", FORGERIES, ids=lambda forge: forge.__name__)
def test_a_forgery_differs_from_the_token_and_cannot_be_verified(forge: object) -> None:
    assert callable(forge)
    made = forge(token())
    assert made != token()
    with pytest.raises(jwt.PyJWTError):
        jwt.decode(made, KEY.private_key.public_key(), algorithms=["RS256"])


def test_the_end_of_a_token_is_read() -> None:
    assert end_of(token()) == CLAIMS["exp"]


@pytest.mark.parametrize(
    ("name", "failed", "kind"),
    [
        ("/auth/login", False, WORKED),
        ("through the gateway", False, WORKED),
        ("through the gateway, logged out", False, REFUSED),
        ("/auth/refresh, ended", False, REFUSED),
        ("attack: garbage", False, REFUSED),
        ("attack: garbage", True, WRONG),
        ("through the gateway", True, WRONG),
    ],
)
def test_an_answer_is_of_one_kind(name: str, failed: bool, kind: str) -> None:
    assert kind_of(name, failed) == kind


def test_refusals_are_added_up_by_reason() -> None:
    rows = [
        ("deny", "a", "expired", "2.0"),
        ("deny", "b", "expired", "3.0"),
        ("deny", "a", "stale", "1.0"),
        ("allow", "a", "", "9.0"),
    ]
    metrics = "\n".join(
        f'gatehouse_verifier_checks_total{{decision="{decision}",policy="{policy}",'
        f'reason="{reason}"}} {value}'
        for decision, policy, reason, value in rows
    )
    assert refusals_in(metrics) == {"expired": 5.0, "stale": 1.0}
    assert refusals_in("") == {}
