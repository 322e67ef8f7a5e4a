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


#: Gives seconds since some moment of its own; only differences mean something.
ElapsedClock = Callable[[], float]


def elapsed_clock() -> float:
    """Return seconds that no change of the time of day touches.

    On Linux they also count while the machine sleeps: a lease renewed before a sleep must
    look as old as it is.
    """
    boot_time: int | None = getattr(time, "CLOCK_BOOTTIME", None)
    return time.monotonic() if boot_time is None else time.clock_gettime(boot_time)
