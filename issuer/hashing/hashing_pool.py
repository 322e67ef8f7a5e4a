"""Threads that hash passwords, with a bounded queue (requirement R33).

A hash takes a fraction of a second of one core. Without a bound, after a hundred
concurrent logins every later client would give up before its hash is computed. bcrypt
releases the GIL, so the event loop keeps running.
"""

from __future__ import annotations

import asyncio
import os
import sys
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import AbstractContextManager, contextmanager, nullcontext, suppress
from typing import Final, TypeVar

from issuer.errors import OverloadedError

T = TypeVar("T")
#: Niceness of the threads: with one per processor, a refresh would otherwise wait for
#: the end of a hash's time slice.
NICENESS: Final = 5


class HashingPool:
    """Runs work on a few threads and refuses calls beyond its queue.

    Args:
        workers: threads.
        queue: calls that may wait for a thread.
        on_change: called with the numbers of waiting and running calls when they
            change.
        watch: surrounds each call, from its wait for a thread to its end.

    Attributes:
        workers: threads.
    """

    def __init__(
        self,
        *,
        workers: int,
        queue: int,
        on_change: Callable[[int, int], None] = lambda waiting, busy: None,
        watch: Callable[[], AbstractContextManager[None]] = nullcontext,
    ) -> None:
        self.workers = workers
        self._watch = watch
        self._capacity = workers + queue
        self._on_change = on_change
        self._admitted = 0
        self._executor = ThreadPoolExecutor(
            workers, thread_name_prefix="hashing", initializer=stand_back
        )

    @property
    def is_full(self) -> bool:
        """Whether all places are taken."""
        return self._admitted >= self._capacity

    @contextmanager
    def reserve(self) -> Iterator[Place]:
        """Hold a place for one call inside the block.

        Reads before the hash are only made by callers that will hash; others cost
        nothing.

        Raises:
            OverloadedError: at once, when all places are taken.
        """
        if self.is_full:
            raise OverloadedError
        self._count(1)
        place = Place(self)
        try:
            yield place
        finally:
            if not place.is_used:
                self._count(-1)

    async def run(self, work: Callable[[], T]) -> T:
        """Return what `work()` returns, called on one of the threads.

        Raises:
            OverloadedError: at once, when all places are taken.
            Exception: whatever `work` raises.
        """
        with self.reserve() as place:
            return await place.run(work)

    def close(self) -> None:
        """Drop waiting calls; running ones end by themselves."""
        self._executor.shutdown(wait=False, cancel_futures=True)

    async def run_held(self, work: Callable[[], T]) -> T:
        """Run it in a held place, which becomes free at its end."""
        loop = asyncio.get_running_loop()
        future = self._executor.submit(work)

        def release(_done: Future[T]) -> None:
            # After the loop is closed the counts have no reader.
            with suppress(RuntimeError):
                loop.call_soon_threadsafe(self._count, -1)

        future.add_done_callback(release)
        with self._watch():
            return await asyncio.wrap_future(future)

    def _count(self, change: int) -> None:
        self._admitted += change
        waiting = max(self._admitted - self.workers, 0)
        self._on_change(waiting, self._admitted - waiting)


class Place:
    """A place in the pool, for one call.

    Attributes:
        is_used: whether the call was made; its end frees the place.
    """

    def __init__(self, pool: HashingPool) -> None:
        self._pool = pool
        self.is_used = False

    async def run(self, work: Callable[[], T]) -> T:
        """Return what `work()` returns, called on one of the threads.

        If the caller is cancelled, the place becomes free only after the work: the
        thread is busy until its end.

        Raises:
            Exception: whatever `work` raises.
        """
        if self.is_used:
            raise RuntimeError("a place is good for one call")
        self.is_used = True
        return await self._pool.run_held(work)


def stand_back() -> None:
    """Give this thread a lower priority than the others; Linux only."""
    if sys.platform == "linux":
        thread = threading.get_native_id()
        with suppress(OSError):
            present = os.getpriority(os.PRIO_PROCESS, thread)
            os.setpriority(os.PRIO_PROCESS, thread, present + NICENESS)
