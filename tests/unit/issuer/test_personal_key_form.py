"""Personal keys: the form for scanners, and the check that one is ours."""

from __future__ import annotations

import re
import zlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from issuer.errors import InvalidRequestError
from issuer.personal_keys.personal_key_form import digest_key, is_key, make_key

KEY = make_key(bytes(range(22)))
ALPHABET = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"


@given(st.binary(min_size=22, max_size=22))
def test_every_key_has_the_form_and_checksum_of_secret_scanners(random: bytes) -> None:
    """CRC-32 of the random part in six characters of base62, as theirs does it."""
    key = make_key(random)
    assert re.fullmatch(r"ghk_[0-9A-Za-z]{36}", key)
    number = 0
    for character in key[-6:]:
        number = number * 62 + ALPHABET.index(character)
    assert number == zlib.crc32(key[4:-6].encode())
    assert is_key(key)


def test_the_least_and_the_greatest_key_have_the_same_length() -> None:
    assert len(make_key(bytes(22))) == len(make_key(b"\xff" * 22)) == 40


@given(st.integers(0, 35), st.sampled_from(ALPHABET))
def test_a_mistyped_key_is_refused(position: int, other: str) -> None:
    position += 4
    mistyped = KEY[:position] + other + KEY[position + 1 :]
    assert is_key(mistyped) == (mistyped == KEY)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "ghk_",
        KEY[:-1],
        KEY + "0",
        "ghs_" + KEY[4:],
        KEY + "\n",
        "ghk_" + "\u00e9" * 36,
    ],
)
def test_a_malformed_key_is_refused_without_a_database_query(text: str) -> None:
    assert not is_key(text)
    with pytest.raises(InvalidRequestError):
        digest_key(text)
