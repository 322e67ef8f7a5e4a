"""How much a series has grown after the warm-up.

A series is compared with itself: the median of the first quarter of the time after the
warm-up with that of the last. A median is not moved by single readings, such as a
collection of garbage that is due, and it makes no guess about the form of the growth. A
straight line is fitted as well, and shown: where the two differ much, the growth is no
leak that goes on, but a step.
"""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from dataclasses import dataclass

#: The most that memory, descriptors and files may grow by.
MOST = 0.02
#: Less is no growth, whatever the share: one descriptor or file more is one connection
#: that happens to be open. Series of bytes have larger numbers, so it is nothing there.
LEAST = 1.0
#: Of a series after the warm-up; the quarters have one each.
LEAST_READINGS = 4


@dataclass(frozen=True)
class Growth:
    """One series after the warm-up.

    Attributes:
        name: of the series.
        first: median of the first quarter.
        last: median of the last quarter.
        per_hour: slope of the fitted line, in the series' unit per hour.
        judged: whether growth over `MOST` is a failure.
    """

    name: str
    first: float
    last: float
    per_hour: float
    judged: bool

    @property
    def share(self) -> float:
        """By what share the last quarter is above the first; less than 0: below."""
        if self.first == self.last:
            return 0.0
        return self.last / self.first - 1 if self.first else 1.0

    @property
    def is_too_much(self) -> bool:
        """Whether it is judged and grew by more than allowed."""
        return self.judged and self.share > MOST and self.last - self.first > LEAST


def measure(
    name: str, times: Sequence[float], values: Sequence[float], *, judged: bool
) -> Growth:
    """Return the growth of a series of readings after the warm-up.

    Args:
        name: of the series.
        times: of the readings, seconds, rising.
        values: the readings.
        judged: whether its growth can be a failure.

    Raises:
        ValueError: there are fewer than `LEAST_READINGS`.
    """
    if len(values) < LEAST_READINGS:
        raise ValueError(f"{name}: {len(values)} readings are too few; measure longer")
    quarter = len(values) // 4
    first = statistics.median(values[:quarter])
    last = statistics.median(values[-quarter:])
    slope = statistics.linear_regression(times, values).slope
    return Growth(name, first, last, slope * 3600, judged)
