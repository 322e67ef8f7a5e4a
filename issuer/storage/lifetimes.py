"""Stored times, compared with both ends (requirement R53).

A row that was written while the clock was ahead lies in the future once the clock is put
right. Its age is negative: compared with one end only, it counts as young, and what it
grants lasts until the clock gets there. Clocks of replicas differ a little, so a moment
counts as future only beyond `CLOCK_ALLOWANCE`.
"""

from __future__ import annotations

from sqlalchemy import ColumnElement, and_
from sqlalchemy.orm import InstrumentedAttribute

from shared.claims import CLOCK_ALLOWANCE


def is_future(at: int, now: int) -> bool:
    """Return whether the clock was ahead when this moment was noted.

    Args:
        at: Unix seconds.
        now: Unix seconds.
    """
    return at > now + CLOCK_ALLOWANCE


def lies_ahead(
    column: InstrumentedAttribute[int] | InstrumentedAttribute[int | None], now: int
) -> ColumnElement[bool]:
    """Return `is_future` of a column, in SQL."""
    return column > now + CLOCK_ALLOWANCE


def is_living(
    expires_at: InstrumentedAttribute[int], now: int, longest: int
) -> ColumnElement[bool]:
    """Return, in SQL, whether something has not expired and was not made ahead of time.

    Args:
        expires_at: the column, Unix seconds.
        now: Unix seconds.
        longest: the longest life it can have been given, seconds.
    """
    return and_(expires_at > now, expires_at <= now + longest + CLOCK_ALLOWANCE)
