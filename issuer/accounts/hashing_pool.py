"""Threads that hash passwords, and a queue before them that ends (requirement R33).

A hash takes a fraction of a second of one core. Without a bound, a hundred logins at
once would make every later one wait past its client's patience, and hash for nobody.
bcrypt lets go of the interpreter while it works, so the event loop goes on beside it.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from typing import Final, TypeVar

from issuer.errors import UnavailableError

T = TypeVar("T")
_RETRY_AFTER: Final = 2


class HashingPool:
    """Runs work on a few threads and turns away what would have to wait too long.

    Args:
        workers: threads.
        queue: calls that may wait for a thread.
        on_change: told how many calls wait and how many run, whenever that changes.
    """

    def __init__(
        self,
        *,
        workers: int,
        queue: int,
        on_change: Callable[[int, int], None] = lambda waiting, busy: None,
    ) -> None:
        self._workers = workers
        self._capacity = workers + queue
        self._on_change = on_change
        self._admitted = 0
        self._executor = ThreadPoolExecutor(workers, thread_name_prefix="hashing")

    async def run(self, work: Callable[[], T]) -> T:
        """Return what `work()` returns, called on one of the threads.

        A caller that goes away while its work runs frees its place only when the work
        has ended: the thread is busy until then.

        Raises:
            UnavailableError: at once, when the queue is full.
            Exception: whatever `work` raises.
        """
        if self._admitted >= self._capacity:
            raise UnavailableError(_RETRY_AFTER, detail="the hashing queue is full")
        loop = asyncio.get_running_loop()
        future = self._executor.submit(work)
        self._count(1)

        def release(_done: Future[T]) -> None:
            # A loop that is closed by now has nobody left to count for.
            with suppress(RuntimeError):
                loop.call_soon_threadsafe(self._count, -1)

        future.add_done_callback(release)
        return await asyncio.wrap_future(future)

    def close(self) -> None:
        """Drop what waits; what runs is left to end by itself."""
        self._executor.shutdown(wait=False, cancel_futures=True)

    def _count(self, change: int) -> None:
        self._admitted += change
        waiting = max(self._admitted - self._workers, 0)
        self._on_change(waiting, self._admitted - waiting)
