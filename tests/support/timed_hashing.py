"""Hashing with counted time, not real time: each unit of work takes a set time."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable

from issuer.hashing.hash_work import Family, Work
from issuer.hashing.passwords import PasswordHasher

#: Seconds per unit, such that no two families or costs take the same.
UNIT_SECONDS = {
    Family.BCRYPT: 0.01,
    Family.PBKDF2_SHA256: 0.0002,
    Family.ARGON2ID: 0.01,
    Family.SCRYPT: 0.0005,
}


def seconds_of(work: Work) -> float:
    """Return the time of a hash of this much work here."""
    return UNIT_SECONDS[work.family] * work.amount


class CountedTime:
    """Seconds that pass when hashes run and when somebody sleeps."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self.now = 0.0
        self.slept: list[float] = []

    def __call__(self) -> float:
        with self._lock:
            return self.now

    def pass_by(self, seconds: float) -> None:
        """Let time pass."""
        with self._lock:
            self.now += seconds

    async def sleep(self, seconds: float) -> None:
        """Let time pass, as `asyncio.sleep` does."""
        self.slept.append(seconds)
        self.pass_by(seconds)
        await asyncio.sleep(0)


class TimedHasher(PasswordHasher):
    """Hashes in earnest, with a clock on which each hash takes the time of its work."""

    time: CountedTime
    done: list[Work]

    def _run(self, work: Work, compute: Callable[[], bytes]) -> bytes:
        def compute_slowly() -> bytes:
            made = compute()
            self.time.pass_by(seconds_of(work))
            return made

        made = super()._run(work, compute_slowly)
        self.done.append(work)
        return made
