"""Holds feed requests until there is news, in this process or in another.

A commit of our own wakes the waiters at once, one of another process when its word
arrives (`wake_ups.py`). Words may be lost, so one task also looks at the counter row,
every 100 ms and only while somebody waits.
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
    """One held request; `woken` is set when it should look again."""

    __slots__ = ("after", "epoch", "woken")

    def __init__(self, epoch: str, after: int) -> None:
        self.epoch = epoch
        self.after = after
        self.woken = asyncio.Event()


class FeedWatch:
    """Wakes held requests.

    Args:
        read_head: reads the counter row.
        on_waiting: told how many requests are held, whenever that changes.
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
        """Register as a waiter and give the event that says "look again".

        Register before reading the feed: what is committed between the reading and the
        waiting then sets the event, and is not missed.
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
        """Wake whoever waits for something at or before `position`; None: everybody."""
        for waiter in self._waiters:
            if position is None or waiter.after < position:
                waiter.woken.set()

    def close(self) -> None:
        """Let every waiter go, now and from now on: the process is about to stop."""
        self._is_closed = True
        self._somebody_waits.set()
        self.wake(None)

    async def poll(self) -> None:
        """Look for other processes' commits until `close`."""
        while True:
            await self._somebody_waits.wait()
            if self._is_closed:
                return
            await asyncio.sleep(_POLL_SECONDS)
            try:
                head = await self._read_head()
            except UnavailableError:
                # They ask the database themselves and answer 503: their verifiers
                # learn at once that we cannot tell, instead of trusting our silence.
                self.wake(None)
                continue
            for waiter in self._waiters:
                if waiter.after < head.seq or waiter.epoch != head.epoch:
                    waiter.woken.set()
