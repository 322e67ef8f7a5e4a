"""Holds feed requests until an entry is committed, here or in another process.

A commit of this process wakes the waiters at once, one of another process by its
notification (`wake_ups.py`). Notifications may be lost, so one task also reads the
counter row every 100 ms while requests wait.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from typing import Final

from issuer.errors import UnavailableError
from issuer.feed.feed import FeedHeadNow

_POLL_SECONDS: Final = 0.1


class _Waiter:
    """One held request; `woken` is set when it must read again."""

    __slots__ = ("after", "epoch", "woken")

    def __init__(self, epoch: str, after: int) -> None:
        self.epoch = epoch
        self.after = after
        self.woken = asyncio.Event()


class FeedWatch:
    """Wakes held requests.

    Args:
        read_head: reads the counter row.
        on_waiting: called with the number of held requests whenever it changes.
    """

    def __init__(
        self,
        read_head: Callable[[], Awaitable[FeedHeadNow]],
        on_waiting: Callable[[int], None],
    ) -> None:
        self._read_head = read_head
        self._on_waiting = on_waiting
        self._waiters: set[_Waiter] = set()
        self._somebody_waits = asyncio.Event()
        self._is_closed = False

    @contextmanager
    def waiting(self, epoch: str, after: int) -> Iterator[asyncio.Event]:
        """Register as a waiter; return the event that is set on news.

        Register before reading the feed: a commit between the reading and the waiting
        then sets the event.
        """
        waiter = _Waiter(epoch, after)
        if self._is_closed:
            waiter.woken.set()
        self._waiters.add(waiter)
        self._somebody_waits.set()
        self._on_waiting(len(self._waiters))
        try:
            yield waiter.woken
        finally:
            self._waiters.discard(waiter)
            if not self._waiters and not self._is_closed:
                self._somebody_waits.clear()
            self._on_waiting(len(self._waiters))

    def wake(self, position: int | None) -> None:
        """Wake waiters for a position at or before this one; None wakes all."""
        for waiter in self._waiters:
            if position is None or waiter.after < position:
                waiter.woken.set()

    def close(self) -> None:
        """Wake all present and future waiters: the process is about to stop."""
        self._is_closed = True
        self._somebody_waits.set()
        self.wake(None)

    async def poll(self) -> None:
        """Check for commits of other processes until `close`."""
        while True:
            await self._somebody_waits.wait()
            if self._is_closed:
                return
            await asyncio.sleep(_POLL_SECONDS)
            try:
                head = await self._read_head()
            except UnavailableError:
                # The waiters read the database themselves and answer 503: the verifiers
                # learn at once that the issuer has no news, and do not take silence for
                # none.
                self.wake(None)
                continue
            for waiter in self._waiters:
                if waiter.after < head.seq or waiter.epoch != head.epoch:
                    waiter.woken.set()
