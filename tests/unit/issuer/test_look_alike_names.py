"""Names that show nothing, and names that look alike (R36, UTS 39)."""

from __future__ import annotations

import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from issuer.accounts.names import normalise_username, read_new_username
from issuer.accounts.skeletons import make_skeleton
from issuer.accounts.visible_text import is_ignorable, is_visible_text
from issuer.credentials.totp import build_uri
from issuer.errors import InvalidRequestError


@pytest.mark.parametrize(
    "hidden",
    [
        "\u3164",
        "\ufe0f",
        "\u034f",
        "\u2800",
        "\u115f",
        "\u17b4",
        "\u180b",
        "\uffa0",
        "\u1680",
        "\ufffc",
        "\U0001d159",
        "\U000e0100",
    ],
    ids=ascii,
)
@pytest.mark.parametrize("form", ["{}", "ro{}ot", "{}root", "root{}"])
def test_r36_invisible_characters_are_in_no_new_name(form: str, hidden: str) -> None:
    with pytest.raises(InvalidRequestError):
        read_new_username(form.format(hidden))
    assert not is_visible_text(form.format(hidden))


@pytest.mark.parametrize(
    "name", ["alice", "alice smith", "\u5c71\u7530", "jos\u00e9", "\u0905\u0928\u093f"]
)
def test_names_that_show_are_names(name: str) -> None:
    assert read_new_username(name) == unicodedata.normalize("NFKC", name)


def test_a_name_of_before_is_still_read_at_a_login() -> None:
    """Its owner logs in with it; only a new one is refused."""
    assert normalise_username("ro\ufe0fot") == "ro\ufe0fot"


@given(st.characters())
def test_ignorable_characters_are_not_visible_by_category(char: str) -> None:
    """Each ignorable character is a format character, a mark, a filler or
    unassigned.
    """
    if is_ignorable(char):
        assert unicodedata.category(char) in {"Cf", "Mn", "Lo", "Cn"}
        assert not is_visible_text(f"a{char}b")


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("root", "r\u043e\u043et"),
        ("paypal", "\u0440\u0430\u0443\u0440\u0430\u04cf"),
        ("mary", "rnary"),
        ("paul", "pau1"),
        ("alice", "\u0430li\u0441e"),
        ("al ice", "al  ice"),
        ("jos\u00e9", "jose\u0301"),
        ("\u03bfmega", "omega"),
    ],
)
def test_r36_names_that_look_alike_have_one_skeleton(one: str, other: str) -> None:
    assert make_skeleton(one) == make_skeleton(other)


@pytest.mark.parametrize(
    ("one", "other"),
    [("root", "roots"), ("alice", "alina"), ("user2", "user3"), ("jose", "jos\u00e9")],
)
def test_names_that_differ_to_the_eye_have_two(one: str, other: str) -> None:
    assert make_skeleton(one) != make_skeleton(other)


@given(st.text(max_size=64))
def test_a_skeleton_of_a_skeleton_is_itself(text: str) -> None:
    """So a name and its skeleton look alike, for any name."""
    once = make_skeleton(text)
    assert make_skeleton(once) == once


@pytest.mark.parametrize(
    ("username", "issuer"),
    [("alice", "::1"), ("a:l:i", "issuer.test"), ("x:", "2001:db8::7")],
)
def test_an_otpauth_label_has_one_colon(username: str, issuer: str) -> None:
    """Apps take the text before a colon for the issuer."""
    label, _, query = (
        build_uri(b"1" * 20, username=username, issuer=issuer)
        .removeprefix("otpauth://totp/")
        .partition("?")
    )
    assert label.count(":") + label.upper().count("%3A") == 1
    assert f"issuer={label.partition(':')[0]}" in query.split("&")
