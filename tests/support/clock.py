"""A clock that stands still until a test moves it."""

from __future__ import annotations


class FakeClock:
    """Wall and monotonic time as one number the test sets, in seconds.

    A fresh clock shows a day in 2026; monotonic time begins at 1,000.
    """

    def __init__(self, now: int = 1_795_000_000) -> None:
        self._start = now
        self._elapsed = 0.0

    def now(self) -> int:
        """Return Unix seconds."""
        return int(self._start + self._elapsed)

    def monotonic(self) -> float:
        """Return monotonic seconds."""
        return 1_000.0 + self._elapsed

    def advance(self, seconds: float) -> None:
        """Let time pass."""
        self._elapsed += seconds

    def set_by(self, seconds: int) -> None:
        """Set the wall clock ahead or, below 0, back: no time passes."""
        self._start += seconds
