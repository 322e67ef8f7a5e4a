"""The bits of a status list, and the order in which they are given out."""

from __future__ import annotations

import base64
import zlib
from itertools import pairwise

import pytest

from issuer.exports.status_list import LIST_SIZE, StatusReference, scatter
from issuer.exports.status_list_tokens import encode_bits

KEY = b"\x05" * 32


def test_the_list_of_the_draft_is_reproduced() -> None:
    """Draft, section 4.1: sixteen 1-bit statuses, bytes b9 a3."""
    statuses = [1, 0, 0, 1, 1, 1, 0, 1, 1, 1, 0, 0, 0, 1, 0, 1]
    revoked = frozenset(i for i, status in enumerate(statuses) if status)
    lst = encode_bits(revoked, size=16)
    assert lst == "eNrbuRgAAhcBXQ"
    assert zlib.decompress(base64.urlsafe_b64decode(lst + "==")) == b"\xb9\xa3"


def test_no_index_is_given_out_twice() -> None:
    """Draft, section 13.2."""
    first = {scatter(KEY, count) for count in range(LIST_SIZE)}
    assert first == set(range(LIST_SIZE))
    second = {scatter(KEY, LIST_SIZE + count) for count in range(1_000)}
    assert len(second) == 1_000
    assert all(LIST_SIZE <= position < 2 * LIST_SIZE for position in second)


def test_neighbours_in_time_are_no_neighbours_in_the_list() -> None:
    positions = [scatter(KEY, count) for count in range(1_000)]
    rising = sum(a < b for a, b in pairwise(positions))
    assert 400 < rising < 600
    assert positions != [scatter(b"\x06" * 32, count) for count in range(1_000)]


@pytest.mark.parametrize(
    ("position", "number", "idx"),
    [(0, 0, 0), (LIST_SIZE - 1, 0, LIST_SIZE - 1), (LIST_SIZE, 1, 0)],
)
def test_a_reference_names_list_and_bit(position: int, number: int, idx: int) -> None:
    reference = StatusReference.at("https://issuer.test", position)
    assert reference.to_claim() == {
        "status_list": {"idx": idx, "uri": f"https://issuer.test/status-lists/{number}"}
    }
