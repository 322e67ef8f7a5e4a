"""The one time by which something must happen on a connection."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from math import inf

#: The loop's clock is coarse: a timer may ring this much early, in seconds.
_EARLY = 0.002


def _do_nothing() -> None:
    """Stand for what was to be called."""


class Deadline:
    """A time that is moved often and reached seldom.

    A timer that rings before it is left alone and set anew then: a request costs no
    timer.

    Args:
        loop: whose time it is.
        on_reached: called once when it is reached.
    """

    def __init__(
        self, loop: asyncio.AbstractEventLoop, on_reached: Callable[[], None]
    ) -> None:
        self._loop = loop
        self._on_reached = on_reached
        self._at = inf
        self._timer: asyncio.TimerHandle | None = None

    def set_in(self, seconds: float) -> None:
        """Set it that many seconds from now."""
        self.set_at(self._loop.time() + seconds)

    def set_at(self, at: float) -> None:
        """Set it to that time of the loop."""
        self._at = at
        if self._timer is not None:
            if self._timer.when() <= at:
                return
            self._timer.cancel()
        self._timer = self._loop.call_at(at, self._ring)

    def set_by(self, seconds: float) -> None:
        """Set it that many seconds from now, unless it is earlier."""
        self.set_at(min(self._at, self._loop.time() + seconds))

    def clear(self) -> None:
        """Have none."""
        self._at = inf

    def stop(self) -> None:
        """Have none for good, and hold nothing."""
        self._at = inf
        self._on_reached = _do_nothing
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _ring(self) -> None:
        self._timer = None
        if self._at <= self._loop.time() + _EARLY:
            self._at = inf
            self._on_reached()
        elif self._at < inf:
            self.set_at(self._at)
