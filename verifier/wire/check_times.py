"""How long checks took, counted in buckets (R39)."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

#: The upper bounds of the buckets, seconds. A check takes 3 us; what is above a
#: millisecond waited for others, for the event loop or for the processor.
BOUNDS: Final = (
    *(0.00001, 0.00002, 0.00005, 0.0001, 0.0002, 0.0005, 0.001, 0.002),
    *(0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0),
)
#: One check in so many is timed. A look at the clock for each would make a warm check
#: 3 to 10 % dearer.
ONE_IN: Final = 8


class CheckTimes:
    """Times from the beginning of a decision to the send of its answer.

    The answers of one turn of the event loop are sent together, so a time has the
    checks of other connections in it.

    Args:
        boottime: gives seconds of this boot, the gate's clock.

    Attributes:
        counts: timed checks by bucket; the last one has what is above all bounds.
        seconds: the sum of all times.
        timed: the connection of the check that is timed now; None for none.
    """

    def __init__(self, boottime: Callable[[], float]) -> None:
        self._boottime = boottime
        self._checks = 0
        self._began = 0.0
        self.counts = [0] * (len(BOUNDS) + 1)
        self.seconds = 0.0
        self.timed: object = None

    def begin(self, connection: object, asked_at: float) -> None:
        """Time this check if it is its turn.

        Args:
            connection: whose check it is.
            asked_at: when the gate was asked, seconds of this boot.
        """
        self._checks += 1
        if self._checks >= ONE_IN and self.timed is None:
            self._checks = 0
            self._began = asked_at
            self.timed = connection

    def end(self) -> None:
        """Count the timed check, whose answer was sent now."""
        self.timed = None
        seconds = self._boottime() - self._began
        bucket = 0
        for bound in BOUNDS:
            if seconds <= bound:
                break
            bucket += 1
        self.counts[bucket] += 1
        self.seconds += seconds
