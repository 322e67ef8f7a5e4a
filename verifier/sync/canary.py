"""The issuer's synthetic revocations: how long one takes from there to here.

The issuer writes its wall time into the key, so the delay is only as right as the two
clocks are in step. It is looked at by people; nothing is decided by it.
"""

from __future__ import annotations

import re
from collections import deque
from collections.abc import Callable, Sequence
from typing import Final

from shared.feed import EntryKind, FeedEntry

#: Delays kept until somebody takes them.
_KEPT: Final = 1_000
#: 15 digits of milliseconds last for 30,000 years; a longer number is no canary.
_KEY: Final = re.compile(r"canary-([0-9]{1,15})-[0-9a-f-]{36}")


class CanaryWatch:
    """Finds canaries among the entries that come into force.

    Args:
        now: gives Unix seconds, with their fraction.

    Attributes:
        last_delay: of the last canary, seconds; None before the first.
    """

    def __init__(self, now: Callable[[], float]) -> None:
        self._now = now
        self._delays: deque[float] = deque(maxlen=_KEPT)
        self.last_delay: float | None = None

    def see(self, entries: Sequence[FeedEntry]) -> None:
        """Look at entries that have just come into force."""
        for entry in entries:
            if entry.kind is not EntryKind.JTI:
                continue
            match = _KEY.fullmatch(entry.key)
            if match is not None:
                # A clock of ours that is behind must not show as a negative delay.
                self.last_delay = max(0.0, self._now() - int(match[1]) / 1_000)
                self._delays.append(self.last_delay)

    def take_delays(self) -> list[float]:
        """Return the delays seen since the last call, seconds, the oldest first."""
        delays = list(self._delays)
        self._delays.clear()
        return delays
