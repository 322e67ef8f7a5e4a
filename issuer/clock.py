"""Time as the issuer sees it: a callable that gives Unix time, handed in at the edge."""

from __future__ import annotations

import time
from collections.abc import Callable

#: Gives Unix time in milliseconds. Below the edges time is an `int` argument.
Clock = Callable[[], int]


def system_clock() -> int:
    """Return the machine's Unix time in milliseconds."""
    return time.time_ns() // 1_000_000


def seconds(clock: Clock) -> int:
    """Return the clock's Unix time in whole seconds, as tokens carry it."""
    return clock() // 1_000
