"""The time by which revocations are pruned; a clock that jumps ahead does not count.

While the wall clock is ahead, every entry looks expired. If it is pruned then, it is
missing once the clock is corrected, and its tokens are accepted again. So a jump ahead
counts only after it has lasted longer than any token lives: every entry from before the
jump has then outlived its tokens by any clock.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from shared.claims import CLOCK_ALLOWANCE, LONGEST_ACCESS_TTL, MAX_LEEWAY

#: Seconds for which a jump ahead must last.
HOLD: Final = LONGEST_ACCESS_TTL + MAX_LEEWAY + CLOCK_ALLOWANCE
#: Seconds of a jump that count at once, because clocks are often corrected by so
#: little.
_TOLERANCE: Final = CLOCK_ALLOWANCE


class SteadyTime:
    """Gives Unix seconds that no jump of the wall clock brings forward within `HOLD`.

    A clock that is put back counts at once, because keeping an entry too long does no
    harm. The wall clock before the start of this process is unknown.

    Args:
        wall: gives Unix seconds.
        elapsed: gives seconds that do not change with the time of day.
    """

    def __init__(self, wall: Callable[[], float], elapsed: Callable[[], float]) -> None:
        self._wall = wall
        self._elapsed = elapsed
        self._offset = wall() - elapsed()
        self._jumped_at: float | None = None
        self._jumped_to = 0.0

    def now(self) -> int:
        """Return the Unix seconds to prune by: the wall clock's, or earlier."""
        elapsed = self._elapsed()
        offset = self._wall() - elapsed
        if offset <= self._offset + _TOLERANCE:
            self._offset, self._jumped_at = offset, None
        elif self._jumped_at is None or offset > self._jumped_to + _TOLERANCE:
            self._jumped_at, self._jumped_to = elapsed, offset
        elif elapsed - self._jumped_at >= HOLD:
            self._offset, self._jumped_at = offset, None
        return int(self._offset + elapsed)
