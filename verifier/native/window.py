"""The window of time in which a gateway may let requests pass by what it was sent.

A gateway closes by itself, also while this process is dead: every request outside of
the window is answered 503. It can compare its wall clock only.
"""

from __future__ import annotations

import math
from typing import Final, NamedTuple

from verifier.check.trust import IssuerTrust

#: Seconds by which a window closes early, and by which it is open before it is sent. A
#: gateway's wall clock that is set back by up to this much makes it no longer.
RESERVE: Final = 1


class Window(NamedTuple):
    """The time in which requests may pass.

    Attributes:
        opens_at: Unix seconds; before it the wall clock was set back.
        closes_at: Unix seconds; from then on the gateway has had no news for too long.
        ends_at: boot-time seconds at which it is over for certain.
    """

    opens_at: int
    closes_at: int
    ends_at: float

    @property
    def is_open(self) -> bool:
        """Whether any request may pass in it."""
        return self.opens_at < self.closes_at


#: Lets nothing pass.
CLOSED: Final = Window(0, 0, 0.0)


def window_of(trust: IssuerTrust, boottime: float, now: float) -> Window:
    """Return the window for the keys and revocations that are trusted now.

    Args:
        trust: in our own issuer.
        boottime: the time now.
        now: the wall clock, Unix seconds, at the same moment or just before.
    """
    ends_at = min(trust.fresh_until, trust.keys_until)
    left = ends_at - boottime - RESERVE
    if not trust.has_revocations or left <= 0:
        return CLOSED
    return Window(math.floor(now) - RESERVE, math.floor(now + left), ends_at)
