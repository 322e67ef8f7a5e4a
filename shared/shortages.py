"""Shortages of a process: file descriptors and room for log lines (R47, R59).

uvloop reports nothing when it has no descriptor left: it accepts each connection with a
reserved descriptor and closes it at once. Clients see a broken connection, the loop
stays idle, and nothing is logged. So the process counts its descriptors once a second.
"""

from __future__ import annotations

import contextlib
import errno
import logging
import os
import resource
import time
from collections.abc import Callable
from typing import Final

from shared.log import dropped_lines, event

_LOG: Final = logging.getLogger(__name__)
#: The share of the limit from which descriptors count as exhausted. It is below 1, so
#: that the operators' port can still report it.
EXHAUSTED_SHARE: Final = 0.95
#: Seconds between two log lines while descriptors are exhausted, or come and go.
LOG_PERIOD: Final = 60.0
#: Seconds for which a dropped log line is a warning.
WARNING_PERIOD: Final = 60.0
#: Errors of a call that needs a descriptor when this process or the system has none.
NO_DESCRIPTOR: Final = frozenset({errno.EMFILE, errno.ENFILE})
DESCRIPTORS_EXHAUSTED: Final = "descriptors_exhausted"
LOG_LINES_DROPPED: Final = "log_lines_dropped"
_DIRECTORY: Final = "/proc/self/fd"
#: The limit to set where the system has no hard limit.
_MOST: Final = 1_048_576


def raise_descriptor_limit() -> None:
    """Raise the soft limit of open files to the hard one.

    The soft limit is 1,024 under systemd and in many shells, for programs that use
    `select`; a worker keeps more connections than that.
    """
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = _MOST if hard == resource.RLIM_INFINITY else hard
    if soft not in (resource.RLIM_INFINITY, hard) and soft < wanted:
        # A sandbox may forbid it; the soft limit is enough to serve.
        with contextlib.suppress(OSError, ValueError):
            resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))


def descriptor_limit() -> int:
    """Return the soft limit of open files; -1 when there is none."""
    return resource.getrlimit(resource.RLIMIT_NOFILE)[0]


def count_descriptors() -> int:
    """Return how many descriptors are open; 0 where the system does not report it.

    It needs no descriptor from Linux 6.2 on, and takes some microseconds there. Before,
    a directory is read: with 20,000 descriptors that takes 10 ms.
    """
    try:
        return os.stat(_DIRECTORY).st_size or len(os.listdir(_DIRECTORY))
    except OSError as error:
        # No descriptor is left to open the directory: all are in use.
        return descriptor_limit() if error.errno in NO_DESCRIPTOR else 0


class Shortages:
    """Watches the shortages of one process; `look` is called once a second.

    Args:
        clock: gives monotonic seconds.
        count: gives the number of open descriptors.
        limit: gives the most there can be; negative for no limit.
        dropped: gives the log lines that were dropped since the start.

    Attributes:
        has_no_descriptors: few or none are left.
        has_dropped_lines: log lines were dropped within the last minute.
    """

    def __init__(
        self,
        clock: Callable[[], float] = time.monotonic,
        count: Callable[[], int] = count_descriptors,
        limit: Callable[[], int] = descriptor_limit,
        dropped: Callable[[], int] = dropped_lines,
    ) -> None:
        self._clock = clock
        self._count = count
        self._limit = limit
        self._dropped = dropped
        self._dropped_before = 0
        self._warns_until = float("-inf")
        self._next_line_at = float("-inf")
        self.has_no_descriptors = False
        self.has_dropped_lines = False

    @property
    def warnings(self) -> list[str]:
        """Warnings for operators while requests are served."""
        return [LOG_LINES_DROPPED] if self.has_dropped_lines else []

    def look(self) -> None:
        """Check the descriptors and the log."""
        now = self._clock()
        self._look_at_descriptors(now)
        dropped = self._dropped()
        if dropped != self._dropped_before:
            self._dropped_before = dropped
            self._warns_until = now + WARNING_PERIOD
        self.has_dropped_lines = now < self._warns_until

    def _look_at_descriptors(self, now: float) -> None:
        used, limit = self._count(), self._limit()
        self.has_no_descriptors = 0 <= limit * EXHAUSTED_SHARE <= used
        if self.has_no_descriptors and now >= self._next_line_at:
            self._next_line_at = now + LOG_PERIOD
            event(
                _LOG,
                logging.ERROR,
                "descriptors.exhausted",
                open=used,
                limit=limit,
                hint="raise the limit of open files (LimitNOFILE, ulimit -n), or lower "
                "the limit of connections",
            )
