"""The issuer's clocks: callables that give the time, passed in at the edge."""

from __future__ import annotations

import time
from collections.abc import Callable

#: Gives Unix time in milliseconds. Below the edges time is an `int` argument.
Clock = Callable[[], int]


def system_clock() -> int:
    """Return the machine's Unix time in milliseconds."""
    return time.time_ns() // 1_000_000


def seconds(clock: Clock) -> int:
    """Return the clock's Unix time in whole seconds, as in tokens."""
    return clock() // 1_000


#: Gives seconds since an arbitrary time; only differences are meaningful.
ElapsedClock = Callable[[], float]


def elapsed_clock() -> float:
    """Return seconds that do not depend on changes of the time of day.

    On Linux they include the time while the machine sleeps: a lease renewed before a
    sleep must have its true age.
    """
    boot_time: int | None = getattr(time, "CLOCK_BOOTTIME", None)
    return time.monotonic() if boot_time is None else time.clock_gettime(boot_time)
