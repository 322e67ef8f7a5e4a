"""User names have one normal form (R36)."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from issuer.accounts.names import normalise_username
from issuer.errors import InvalidRequestError


@pytest.mark.parametrize(
    ("typed", "normal"),
    [
        ("alice", "alice"),
        ("ALICE", "alice"),
        ("\uff21lice", "alice"),
        ("Stra\u00dfe", "strasse"),
        ("\u1e9e", "ss"),
        ("\ufb01ona", "fiona"),
        ("A\u030angstro\u0308m", "\u00e5ngstr\u00f6m"),
        ("alice smith", "alice smith"),
        ("alice\u00a0smith", "alice smith"),
        ("\u5c71\u7530", "\u5c71\u7530"),
        ("a" * 64, "a" * 64),
    ],
)
def test_spellings_of_one_name_are_one_account(typed: str, normal: str) -> None:
    """R36."""
    assert normalise_username(typed) == normal


@pytest.mark.parametrize(
    "typed",
    [
        pytest.param("", id="empty"),
        pytest.param("a" * 65, id="65 characters"),
        pytest.param("\ufdfa" * 4, id="over 64 once normalised"),
        pytest.param(" alice", id="white space before"),
        pytest.param("alice\u2003", id="white space after"),
        pytest.param(" ", id="white space only"),
        pytest.param("ali\nce", id="line feed"),
        pytest.param("ali\0ce", id="NUL"),
        pytest.param("ali\x7fce", id="delete"),
        pytest.param("ali\u2028ce", id="line separator"),
        pytest.param("ali\u202ece", id="right-to-left override"),
        pytest.param("ali\u200bce", id="zero width space"),
        pytest.param("ali\ufeffce", id="byte order mark"),
        pytest.param("ali\ud800ce", id="lone surrogate"),
        pytest.param("ali\u0378ce", id="unassigned"),
        pytest.param("ali\ue000ce", id="private use"),
    ],
)
def test_indistinguishable_names_are_refused(typed: str) -> None:
    """R36."""
    with pytest.raises(InvalidRequestError) as refused:
        normalise_username(typed)
    assert [problem.field for problem in refused.value.problems] == ["username"]


@given(st.text(max_size=70))
def test_the_normal_form_of_a_normal_form_is_itself(typed: str) -> None:
    """R36: otherwise an account could not be found under its own key."""
    try:
        normal = normalise_username(typed)
    except InvalidRequestError:
        return
    assert normalise_username(normal) == normal
    assert 1 <= len(normal) <= 64
