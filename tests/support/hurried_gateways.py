"""Waits out a gateway whose long time-outs were made shorter by one factor."""

from __future__ import annotations

import time
from typing import Final

from tests.support.gateway_kinds.kind import FACTOR
from tests.support.processes import wait_until

#: Seconds of quiet that a test waits: 80 s before the division.
_QUIET: Final = 80 / FACTOR


def be_quiet() -> None:
    """Let the time pass after which a default would end a stream."""
    begin = time.monotonic()
    wait_until(lambda: time.monotonic() - begin > _QUIET, deadline=60, what="quiet")
