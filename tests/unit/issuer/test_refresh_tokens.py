"""The form of refresh tokens: only strings that the issuer made pass."""

from __future__ import annotations

import hashlib
import uuid

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from issuer.errors import InvalidGrantError
from issuer.sessions.refresh import (
    PresentedToken,
    find_token,
    make_token,
    parse_token,
)
from issuer.tokens.opaque_tokens import digest_token
from shared.jose import base64url

FAMILY_ID = "5f9c1e1e-0000-4000-8000-000000000001"
KEY, OTHER_KEY = b"\x01" * 32, b"\x02" * 32
KEYS = {"r1": KEY}
TOKEN = make_token(FAMILY_ID, 7, KEY)


def test_a_token_of_ours_is_read() -> None:
    digest = hashlib.sha256(TOKEN.encode()).digest()
    assert parse_token(TOKEN, KEYS) == PresentedToken(FAMILY_ID, 7, digest)


def test_the_successor_is_the_same_every_time() -> None:
    """R29."""
    assert make_token(FAMILY_ID, 8, KEY) == make_token(FAMILY_ID, 8, KEY)


@given(
    families=st.tuples(st.uuids(), st.uuids()),
    generations=st.tuples(st.integers(0, 2**32 - 1), st.integers(0, 2**32 - 1)),
    keys=st.tuples(st.binary(min_size=32, max_size=32), st.binary(min_size=32)),
)
def test_another_family_generation_or_key_is_another_token(
    families: tuple[uuid.UUID, uuid.UUID],
    generations: tuple[int, int],
    keys: tuple[bytes, bytes],
) -> None:
    ours = (str(families[0]), generations[0], keys[0])
    theirs = (str(families[1]), generations[1], keys[1])
    assert (make_token(*ours) == make_token(*theirs)) == (ours == theirs)


@pytest.mark.parametrize("position", range(len(TOKEN)))
def test_no_character_can_be_changed(position: int) -> None:
    """A stranger cannot make a token that triggers reuse handling."""
    for other in ("A", "b", "_", "=", "\u00e9"):
        changed = TOKEN[:position] + other + TOKEN[position + 1 :]
        if changed != TOKEN:
            with pytest.raises(InvalidGrantError):
                parse_token(changed, KEYS)


@pytest.mark.parametrize(
    "token",
    [
        pytest.param(make_token(FAMILY_ID, 7, OTHER_KEY), id="another key"),
        pytest.param(TOKEN[:-1], id="cut"),
        pytest.param(TOKEN + "A", id="longer"),
        pytest.param(TOKEN + "\n", id="line feed"),
        pytest.param(" " + TOKEN, id="space"),
        pytest.param(TOKEN.upper(), id="upper case"),
        pytest.param("ghs_" + TOKEN[4:], id="another prefix"),
        pytest.param("", id="empty"),
        pytest.param("ghr_", id="prefix alone"),
        pytest.param("ghr_" + base64url.encode(b"\x02" + bytes(52)), id="version"),
        pytest.param("ghr_" + "A" * 71, id="zeros"),
    ],
)
def test_tokens_we_did_not_make_are_refused(token: str) -> None:
    with pytest.raises(InvalidGrantError):
        parse_token(token, KEYS)


@given(st.text(max_size=90))
@example("ghr_" + "\udcff" * 71)
def test_any_text_is_read_or_refused(token: str) -> None:
    with pytest.raises(InvalidGrantError):
        parse_token(token, KEYS)


def test_a_key_that_is_no_longer_first_still_recognises_its_tokens() -> None:
    assert parse_token(TOKEN, {"r2": OTHER_KEY, "r1": KEY}).generation == 7


def test_the_successor_is_found_with_whichever_key_made_it() -> None:
    """R29: while keys change, another process may have made it with another one."""
    ring = {"r2": OTHER_KEY, "r1": KEY}
    assert find_token(FAMILY_ID, 7, digest_token(TOKEN), ring) == TOKEN


def test_a_successor_of_a_removed_key_is_not_replaced_by_another() -> None:
    """R28: two successors of one token would be two living tokens."""
    with pytest.raises(InvalidGrantError):
        find_token(FAMILY_ID, 7, digest_token(TOKEN), {"r2": OTHER_KEY})
