"""Claims that fill a token up to its limit, in each shape that makes long headers."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

Claims = dict[str, Any]


def _roles(size: int, letter: str) -> Claims:
    """110 and more short names, as of a directory with many groups."""
    names = [f"{letter * 8}-{n:03}" for n in range(size // 12)]
    return {"roles": [*names, letter * (size % 12 + 1)]}


def _scopes(size: int, letter: str) -> Claims:
    words = [letter * 60] * (size // 60) + [letter * (size % 60 + 1)]
    return {"scope": " ".join(words)}


def _everything(size: int) -> Claims:
    """A user name of the most bytes, and the rest shared by roles and scopes."""
    half = size // 2
    roles, scopes = _roles(half, "ö"), _scopes(size - half, ",")
    return {"username": "\U0001f600" * 64, **roles, **scopes}


#: By name: gives claims that grow with a size.
LARGEST_CLAIMS: dict[str, Callable[[int], Claims]] = {
    "roles": lambda size: _roles(size, "r"),
    "non-ASCII roles": lambda size: _roles(size, "漢"),
    "scopes with commas": lambda size: _scopes(size, ","),
    "non-ASCII scopes": lambda size: _scopes(size, "漢"),
    "a long user name, roles and scopes": _everything,
}


def largest(fits: Callable[[int], bool]) -> int:
    """Return the largest size that fits; a larger one never does."""
    low, high = 1, 16_384
    assert fits(low)
    while low < high:
        middle = (low + high + 1) // 2
        low, high = (middle, high) if fits(middle) else (low, middle - 1)
    return low
