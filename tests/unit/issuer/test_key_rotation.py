"""The acts that are due to the signing keys, by table."""

from __future__ import annotations

import pytest

from issuer.keys.follower_keys import KeysAwaited
from issuer.keys.key_changes import (
    MAX_AGE,
    KeyChange,
    KeyFacts,
    KeyRotationTimes,
    decide_key_change,
)
from issuer.keys.store import KeyState

NEVER = KeyRotationTimes(interval=0, publish_ahead=600, retire_after=1_000)
DAILY = KeyRotationTimes(interval=86_400, publish_ahead=600, retire_after=1_000)
HASTY = KeyRotationTimes(interval=100, publish_ahead=600, retire_after=1_000)

NOW = 1_000_000
ACTIVE = KeyFacts("old", KeyState.ACTIVE, NOW - 86_400, activated_at=NOW - 86_400)
NOTHING = KeyChange()
PUBLISH = KeyChange(publish=True)
ACTIVATE = KeyChange(activate=True)


def active_since(age: int) -> KeyFacts:
    return KeyFacts("old", KeyState.ACTIVE, NOW - age, activated_at=NOW - age)


def next_since(age: int) -> KeyFacts:
    return KeyFacts("new", KeyState.NEXT, NOW - age)


def retiring_since(age: int, kid: str = "older") -> KeyFacts:
    return KeyFacts(kid, KeyState.RETIRING, 0, activated_at=0, retired_at=NOW - age)


CASES = [
    ("an active key stays without an interval", [ACTIVE], NEVER, NOTHING),
    ("a young active key stays", [active_since(85_799)], DAILY, NOTHING),
    ("the next key is published ahead of time", [active_since(85_800)], DAILY, PUBLISH),
    ("an interval below the lead begins at once", [active_since(0)], HASTY, PUBLISH),
    ("a next key is not doubled", [ACTIVE, next_since(0)], DAILY, NOTHING),
    ("a next key waits its time", [ACTIVE, next_since(599)], DAILY, NOTHING),
    ("a next key then takes over", [ACTIVE, next_since(600)], DAILY, ACTIVATE),
    ("also without an interval", [ACTIVE, next_since(600)], NEVER, ACTIVATE),
    ("a retiring key stays", [ACTIVE, retiring_since(999)], NEVER, NOTHING),
    (
        "a retiring key leaves after the last token",
        [ACTIVE, retiring_since(1_000)],
        NEVER,
        KeyChange(remove=("older",)),
    ),
    (
        "all that is due is done at once",
        [active_since(90_000), retiring_since(2_000), retiring_since(3_000, "oldest")],
        DAILY,
        KeyChange(publish=True, remove=("older", "oldest")),
    ),
    ("no keys, nothing to follow", [], DAILY, NOTHING),
    (
        "an active key of the future counts from now",
        [active_since(-86_400)],
        DAILY,
        KeyChange(redate=("old",)),
    ),
    (
        "so does a next key",
        [ACTIVE, next_since(-86_400)],
        NEVER,
        KeyChange(redate=("new",)),
    ),
    (
        "and a retiring one, whatever is due to the others",
        [active_since(90_000), retiring_since(-86_400)],
        DAILY,
        KeyChange(publish=True, redate=("older",)),
    ),
    (
        "clocks of replicas differ by a little",
        [active_since(-120), retiring_since(-120)],
        DAILY,
        NOTHING,
    ),
]


@pytest.mark.parametrize(
    ("keys", "limits", "due"),
    [case[1:] for case in CASES],
    ids=[case[0] for case in CASES],
)
def test_by_schedule(
    keys: list[KeyFacts], limits: KeyRotationTimes, due: KeyChange
) -> None:
    assert decide_key_change(keys, NOW, limits) == due


@pytest.mark.parametrize(
    ("age", "awaited", "due"),
    [
        (600, KeysAwaited(), ACTIVATE),
        (10_000, KeysAwaited(behind=1), NOTHING),
        (10_000, KeysAwaited(behind=1, silent=1), NOTHING),
        (600, KeysAwaited(silent=1), NOTHING),
        (600 + MAX_AGE - 1, KeysAwaited(silent=9), NOTHING),
        (600 + MAX_AGE, KeysAwaited(silent=9), ACTIVATE),
        (599, KeysAwaited(), NOTHING),
    ],
)
def test_a_next_key_waits_for_verifiers(
    age: int, awaited: KeysAwaited, due: KeyChange
) -> None:
    assert decide_key_change([ACTIVE, next_since(age)], NOW, NEVER, awaited) == due


def test_a_wanted_rotation_publishes_and_then_waits() -> None:
    assert decide_key_change([ACTIVE], NOW, NEVER, is_wanted=True) == PUBLISH
    standing = [ACTIVE, next_since(10)]
    assert decide_key_change(standing, NOW, NEVER, is_wanted=True) == NOTHING


def test_an_immediate_rotation_does_not_wait() -> None:
    both = KeyChange(publish=True, activate=True)
    assert decide_key_change([ACTIVE], NOW, NEVER, is_immediate=True) == both
    standing = [ACTIVE, next_since(10)]
    assert decide_key_change(standing, NOW, NEVER, is_immediate=True) == ACTIVATE
