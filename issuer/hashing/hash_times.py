"""The duration of hashes, and the delay before a failed login is answered (R32).

A failed login is answered after the duration of the costliest stored hash, whatever its
own hash took: otherwise the time shows whether an account exists, and how old its hash
is. Durations are measured during the computation of hashes, in each process, and follow
the load of the machine. A kind of hash without a login so far is measured once with a
hash of the same size (`stored_work.py`).
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Iterable
from typing import Final

from issuer.hashing.hash_work import Family, Work

#: Measurements kept for each family.
_KEPT: Final = 64
#: From this number on the longest is ignored: one interrupted hash, by a suspended
#: machine or a debugger, must not delay all later answers.
_OUTLIERS: Final = 1 / 16
#: A hash this much smaller is not used: scaling would multiply the scheduler's part in
#: its duration.
_COMPARABLE: Final = 4
#: Seconds: the greatest delay of an answer.
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
        # Hashing threads write, the event loop reads.
        self._lock = threading.Lock()

    def note(self, work: Work, took: float) -> None:
        """Store the duration of a hash in seconds."""
        with self._lock:
            self._measured[work.family].append((work.amount, took))

    def expect(self, stored: Iterable[Work]) -> None:
        """Set the costliest stored hashes of each family; our own is added."""
        costliest = {self.present.family: self.present.amount}
        for family, amount in stored:
            costliest[family] = max(amount, costliest.get(family, 0))
        self._costliest = costliest

    def is_expected(self, work: Work) -> bool:
        """Return whether this work is at most that of the expected hashes."""
        return work.amount <= self._costliest.get(work.family, 0)

    def unmeasured(self) -> list[Work]:
        """Return the costliest stored hashes without a measurement."""
        return [
            Work(family, amount)
            for family, amount in self._costliest.items()
            if self._estimate(family, amount) is None
        ]

    def remaining(self, took: float) -> float:
        """Return the delay in seconds of a failed login whose own hash took `took`."""
        estimates = (
            self._estimate(family, amount) or 0.0
            for family, amount in self._costliest.items()
        )
        return min(max(max(estimates) - took, 0.0), LONGEST_WAIT)

    def _estimate(self, family: Family, amount: int) -> float | None:
        """Return the greatest duration of such a hash; None without measurements."""
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
