"""The deadline of a connection."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from math import inf

#: The loop's clock is coarse: a timer may ring this much early, in seconds.
_EARLY = 0.002


def _do_nothing() -> None:
    """Do nothing; replaces the callback of a deadline that was dropped."""


class Deadline:
    """A deadline that is moved often and reached seldom.

    A timer that is set for an earlier time is kept, and set again when it fires. So a
    request costs no new timer.

    Args:
        loop: the event loop whose clock it uses.
        on_reached: called once when the deadline is reached.
    """

    def __init__(
        self, loop: asyncio.AbstractEventLoop, on_reached: Callable[[], None]
    ) -> None:
        self._loop = loop
        self._on_reached = on_reached
        self._at = inf
        self._timer: asyncio.TimerHandle | None = None

    def set_in(self, seconds: float) -> None:
        """Set the deadline to that many seconds from now."""
        self.set_at(self._loop.time() + seconds)

    def set_at(self, at: float) -> None:
        """Set the deadline to that time of the loop."""
        self._at = at
        if self._timer is not None:
            if self._timer.when() <= at:
                return
            self._timer.cancel()
        self._timer = self._loop.call_at(at, self._ring)

    def set_by(self, seconds: float) -> None:
        """Set the deadline to that many seconds from now, unless it is earlier."""
        self.set_at(min(self._at, self._loop.time() + seconds))

    def clear(self) -> None:
        """Remove the deadline."""
        self._at = inf

    def stop(self) -> None:
        """Remove the deadline for good, and drop the callback."""
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
