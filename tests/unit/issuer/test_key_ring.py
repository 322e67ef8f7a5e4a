"""Rings of keys as settings write them down."""

from __future__ import annotations

import pytest

from issuer.settings.key_ring import read_key_ring

KEY = "A" * 43


def test_the_first_key_is_the_one_in_use() -> None:
    ring = read_key_ring(f"k2:{KEY}, {'x' * 64}:{KEY}")
    assert (ring.current_id, len(ring)) == ("k2", 2)


@pytest.mark.parametrize(
    "text",
    [
        f"{'x' * 65}:{KEY}",  # the database's columns have 64
        f"k\u00fc:{KEY}",
        f"\u00b2:{KEY}",
        f":{KEY}",
        f"k 1:{KEY}",
        f"k1:{KEY},k1:{KEY}",
        "k1:short",
        f"k1:{KEY}A",
    ],
)
def test_a_ring_with_a_fault_is_refused_and_not_repeated(text: str) -> None:
    """R35."""
    with pytest.raises(ValueError, match="must be ID:KEY") as caught:
        read_key_ring(text)
    assert KEY not in str(caught.value)
