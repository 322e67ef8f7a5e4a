"""Stored times, compared with both a past and a future bound (requirement R53).

A row that was written while the clock was ahead lies in the future after the clock is
corrected. Its age is negative: compared with one bound only, it counts as young, and
its grant lasts until the clock reaches that time. Clocks of replicas differ a little,
so a time counts as future only beyond `CLOCK_ALLOWANCE`.
"""

from __future__ import annotations

from sqlalchemy import ColumnElement, and_
from sqlalchemy.orm import InstrumentedAttribute

from shared.claims import CLOCK_ALLOWANCE


def is_future(at: int, now: int) -> bool:
    """Return whether the clock was ahead when this time was stored.

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
    """Return, in SQL, whether a row has not expired and was not dated from the future.

    Args:
        expires_at: the column, Unix seconds.
        now: Unix seconds.
        longest: the longest lifetime that can have been granted, seconds.
    """
    return and_(expires_at > now, expires_at <= now + longest + CLOCK_ALLOWANCE)
