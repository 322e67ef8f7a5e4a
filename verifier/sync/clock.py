"""The clock that trust is counted by, and the boot it belongs to.

`CLOCK_BOOTTIME` is the same for every process of one boot, so an age in a disk copy
means the same to the next process. Unlike `CLOCK_MONOTONIC` it also counts while the
machine sleeps; else a laptop that wakes up would hold old revocations for fresh
(docs/revocation.md).
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


#: Seconds since the machine started, including its sleep where the platform counts it.
boottime: Final = _choose()


def boot_identity(
    boot_id: Path = _BOOT_ID, time_namespace: Path = _TIME_NAMESPACE
) -> str:
    """Return the identity of the `boottime` clock; equal texts mean the same clock.

    It is the kernel's id of this boot and the time namespace, which may shift the
    clock. It is empty where the platform has neither; then no age outlives its process.

    Args:
        boot_id: the file with the kernel's id.
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
    """Round up: a bound that is sent to the issuer must not be too short."""
    return math.ceil(seconds)
