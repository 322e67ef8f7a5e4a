"""The clock that trust is counted by, and the boot it belongs to.

`CLOCK_BOOTTIME` is the same for every process of one boot, so that an age in a disk copy
means the same to the next process; unlike `CLOCK_MONOTONIC` it also counts while the
machine sleeps, or a laptop would open its lid on a fresh gate (docs/revocation.md).
"""

from __future__ import annotations

import math
import os
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Final

_BOOT_ID: Final = Path("/proc/sys/kernel/random/boot_id")
_TIME_NAMESPACE: Final = Path("/proc/self/ns/time")


def _choose() -> Callable[[], float]:
    number = getattr(time, "CLOCK_BOOTTIME", None)
    return time.monotonic if number is None else partial(time.clock_gettime, number)


#: Seconds since the machine was started, its sleep included where the platform counts it.
boottime: Final = _choose()


def boot_identity(
    boot_id: Path = _BOOT_ID, time_namespace: Path = _TIME_NAMESPACE
) -> str:
    """Return what `boottime` counts from: two equal texts, one and the same clock.

    The kernel's id of this boot and the time namespace, which may shift the clock. Empty
    where the platform tells neither: then no age outlives its process.

    Args:
        boot_id: the file that holds the kernel's id.
        time_namespace: the link that names the namespace.
    """
    try:
        boot = boot_id.read_text("ascii").strip()
    except OSError:
        return ""
    try:
        return f"{boot} {os.readlink(time_namespace)}"
    except OSError:  # a kernel before 5.6 has no such namespace
        return boot


def whole_seconds_up(seconds: float) -> int:
    """Return the next whole second: a bound told to others must not be told too short."""
    return math.ceil(seconds)
