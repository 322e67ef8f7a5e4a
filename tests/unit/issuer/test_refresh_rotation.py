"""The decision about a presented refresh token, as a table (R28, R29)."""

from __future__ import annotations

from dataclasses import replace

import pytest

from issuer.sessions.refresh import (
    Decision,
    Expired,
    FamilyRecord,
    PresentedToken,
    RefreshTimes,
    Repeat,
    Reuse,
    Revoked,
    Rotate,
    decide_rotation,
)

FAMILY_ID = "5f9c1e1e-0000-4000-8000-000000000001"
ROTATED_AT = 1_000
EXPIRES_AT = 10_000
LIMITS = RefreshTimes(grace=10, idle_ttl=500)
RECORD = FamilyRecord(
    generation=5,
    current_digest=b"5" * 32,
    rotated_at=ROTATED_AT,
    expires_at=EXPIRES_AT,
    revoked_at=None,
)


def presented(generation: int, digest: bytes | None = None) -> PresentedToken:
    """The token of a generation, by default with the digest it was given out with."""
    return PresentedToken(
        FAMILY_ID, generation, digest or str(generation).encode()[-1:] * 32
    )


@pytest.mark.parametrize(
    ("generation", "age", "decision"),
    [
        pytest.param(5, 0, Rotate(6), id="current, at once"),
        pytest.param(5, 499, Rotate(6), id="current, at the end of the idle time"),
        pytest.param(5, 500, Expired(), id="current, idle for too long"),
        pytest.param(5, -3, Rotate(6), id="current, the clock went back"),
        pytest.param(5, -499, Rotate(6), id="current, the clock went far back"),
        pytest.param(5, -500, Expired(), id="current, dated too far ahead"),
        pytest.param(4, -9, Repeat(), id="the one before, another replica's clock"),
        pytest.param(4, -10, Reuse(), id="the one before, the clock went back"),
        pytest.param(4, -10 * 365 * 86_400, Reuse(), id="by ten years"),
        pytest.param(4, 0, Repeat(), id="the one before, at once"),
        pytest.param(4, 9, Repeat(), id="the one before, within the grace"),
        pytest.param(4, 10, Reuse(), id="the one before, after the grace"),
        pytest.param(4, 500, Expired(), id="the one before, idle for too long"),
        pytest.param(3, 0, Reuse(), id="its successor was used"),
        pytest.param(0, 0, Reuse(), id="the first"),
        pytest.param(6, 0, Reuse(), id="never given out"),
        pytest.param(9, 499, Reuse(), id="far from the future"),
    ],
)
def test_age_and_generation_decide(
    generation: int, age: int, decision: Decision
) -> None:
    """R28, R29."""
    decided = decide_rotation(RECORD, presented(generation), ROTATED_AT + age, LIMITS)
    assert decided == decision


def test_a_token_of_the_current_generation_that_is_not_the_current_is_reuse() -> None:
    """R28: its MAC is ours and the database never gave it out."""
    forged = presented(5, b"x" * 32)
    assert decide_rotation(RECORD, forged, ROTATED_AT, LIMITS) == Reuse()


@pytest.mark.parametrize("generation", [3, 4, 5, 6])
def test_a_revoked_family_refuses_every_token(generation: int) -> None:
    """R28."""
    record = replace(RECORD, revoked_at=ROTATED_AT)
    decided = decide_rotation(record, presented(generation), ROTATED_AT, LIMITS)
    assert decided == Revoked()


@pytest.mark.parametrize("generation", [3, 4, 5, 6])
def test_the_absolute_lifetime_ends_a_family_that_rotated_just_now(
    generation: int,
) -> None:
    """R29: sliding does not move it (ASVS 10.4.8)."""
    record = replace(RECORD, rotated_at=EXPIRES_AT - 1)
    decided = decide_rotation(record, presented(generation), EXPIRES_AT, LIMITS)
    assert decided == Expired()
    before = decide_rotation(record, presented(5), EXPIRES_AT - 1, LIMITS)
    assert before == Rotate(6)


def test_nothing_is_repeated_without_a_grace() -> None:
    limits = replace(LIMITS, grace=0)
    assert decide_rotation(RECORD, presented(4), ROTATED_AT, limits) == Reuse()
