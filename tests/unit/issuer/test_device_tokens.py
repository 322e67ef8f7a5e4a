"""Device tokens: bound to a user, a state of the account and a time."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from issuer.login.device_tokens import DeviceTokens
from issuer.sessions.refresh import make_token
from issuer.settings.issuer_settings import KeyRing
from shared.claims import CLOCK_ALLOWANCE

KEY = b"\x03" * 32
USER = "8f0a6e0e-6a2b-4b57-9a0a-5f4f1d7a2c11"
NOW = 1_795_000_000
TTL = 1_000


def issue(keys: KeyRing | None = None) -> tuple[DeviceTokens, str]:
    tokens = DeviceTokens(keys or KeyRing(r1=KEY), TTL)
    made = tokens.issue(USER, 7, NOW)
    assert made is not None
    return tokens, made


#: The clock of another replica may be behind by a little (R53).
AGES = (0, TTL - 1, -CLOCK_ALLOWANCE)


def test_a_device_keeps_its_name_for_as_long_as_its_token_counts() -> None:
    tokens, made = issue()
    names = {tokens.recognise(made, USER, 7, NOW + age) for age in AGES}
    assert names != {None}
    assert len(names) == 1
    again = tokens.issue(USER, 7, NOW)
    assert tokens.recognise(again, USER, 7, NOW) not in names


@pytest.mark.parametrize(
    ("user_id", "generation", "now"),
    [
        (USER, 7, NOW + TTL),
        (USER, 7, NOW - CLOCK_ALLOWANCE - 1),
        (USER, 8, NOW),
        (USER, 6, NOW),
        ("477ff1fe-a94c-47c7-ac9c-9cf41f314fb0", 7, NOW),
        (None, 7, NOW),
    ],
)
def test_another_user_state_or_time_is_no_device(
    user_id: str | None, generation: int, now: int
) -> None:
    tokens, made = issue()
    assert tokens.recognise(made, user_id, generation, now) is None


def test_a_key_that_left_the_ring_makes_it_strange_and_one_behind_does_not() -> None:
    _, made = issue()
    both = DeviceTokens(KeyRing(r2=b"\x04" * 32, r1=KEY), TTL)
    assert both.recognise(made, USER, 7, NOW) is not None
    assert DeviceTokens(KeyRing(r2=b"\x04" * 32), TTL).recognise(
        made, USER, 7, NOW
    ) is (None)


def test_a_refresh_token_of_the_same_key_is_no_device() -> None:
    """Its MAC is made for another purpose."""
    tokens, _ = issue()
    refresh = make_token(USER, 7, KEY)
    for text in (refresh, refresh.replace("ghr_", "ghd_")):
        assert tokens.recognise(text, USER, 7, NOW) is None


@given(st.one_of(st.text(), st.from_regex(r"ghd_[A-Za-z0-9_-]{108}", fullmatch=True)))
def test_no_text_that_we_did_not_make_is_a_device(text: str) -> None:
    tokens, _ = issue()
    assert tokens.recognise(text, USER, 7, NOW) is None


def test_every_changed_character_makes_it_strange() -> None:
    tokens, made = issue()
    for place in range(len(made)):
        other = "A" if made[place] != "A" else "B"
        changed = made[:place] + other + made[place + 1 :]
        assert tokens.recognise(changed, USER, 7, NOW) is None
    assert len(made) == len("ghd_") + 108
