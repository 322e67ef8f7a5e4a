"""How long hashes take here, and until when a failed login is not answered (R32).

A failed login is answered after the time that the costliest stored hash takes, whatever
its own hash took: otherwise the time tells who has an account, and how old its hash is.
What a hash takes is measured as hashes are computed, in each process for itself, and
follows the load of the machine. A hash that nobody has logged in with yet is measured
once, by one of its size (`stored_work.py`).
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Iterable
from typing import Final

from issuer.hashing.hash_work import Family, Work

#: Measurements that are kept of each family.
_KEPT: Final = 64
#: Of so many, the longest is left out: one hash that was interrupted, by a machine that
#: slept or a debugger, must not make all later answers late.
_OUTLIERS: Final = 1 / 16
#: A measurement of a hash this much smaller tells too little: the scheduler's part in it
#: would be multiplied with it.
_COMPARABLE: Final = 4
#: Seconds; no answer waits longer, whatever was measured.
LONGEST_WAIT: Final = 10.0


class HashTimes:
    """Measurements of hashes, by family.

    Args:
        present: the work of a new hash, and of a refusal's.
    """

    def __init__(self, present: Work) -> None:
        self.present = present
        self._costliest = {present.family: present.amount}
        self._measured: dict[Family, deque[tuple[int, float]]] = {
            family: deque(maxlen=_KEPT) for family in Family
        }
        # Threads that hash measure, the event loop asks.
        self._lock = threading.Lock()

    def note(self, work: Work, took: float) -> None:
        """Take down that a hash took so many seconds."""
        with self._lock:
            self._measured[work.family].append((work.amount, took))

    def expect(self, stored: Iterable[Work]) -> None:
        """Take these as the costliest stored hashes of their families, beside our own."""
        costliest = {self.present.family: self.present.amount}
        for family, amount in stored:
            costliest[family] = max(amount, costliest.get(family, 0))
        self._costliest = costliest

    def is_expected(self, work: Work) -> bool:
        """Return whether a hash of so much work is no costlier than those expected."""
        return work.amount <= self._costliest.get(work.family, 0)

    def unmeasured(self) -> list[Work]:
        """Return the costliest stored hashes of which nothing was measured."""
        return [
            Work(family, amount)
            for family, amount in self._costliest.items()
            if self._estimate(family, amount) is None
        ]

    def remaining(self, took: float) -> float:
        """Return the seconds that a failed login waits whose own hash took `took`."""
        estimates = (
            self._estimate(family, amount) or 0.0
            for family, amount in self._costliest.items()
        )
        return min(max(max(estimates) - took, 0.0), LONGEST_WAIT)

    def _estimate(self, family: Family, amount: int) -> float | None:
        """Return what such a hash takes at the most; None: nothing is known."""
        with self._lock:
            measured = tuple(self._measured[family])
        scaled = sorted(
            took * amount / size
            for size, took in measured
            if size * _COMPARABLE >= amount
        )
        if not scaled:
            return None
        return scaled[-1 - int(len(scaled) * _OUTLIERS)]
