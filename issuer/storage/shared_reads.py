"""Lets many callers share one read of the database."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Hashable
from typing import Generic, TypeVar

Key = TypeVar("Key", bound=Hashable)
Value = TypeVar("Value")


class SharedReads(Generic[Key, Value]):
    """One read at a time per key; who asks meanwhile shares the next one.

    Each caller gets the outcome of a read that began after it asked, never of one under
    way: a follower's lease is committed before its page is read, and a confirmation
    looks at the followers after its revocation was committed (docs/revocation.md).
    """

    def __init__(self) -> None:
        self._next: dict[Key, asyncio.Task[Value]] = {}
        self._running: dict[Key, asyncio.Task[Value]] = {}

    async def get(self, key: Key, read: Callable[[], Awaitable[Value]]) -> Value:
        """Return what `read` gives, called by us or by another caller of this key.

        Raises:
            Whatever `read` raises, to each who shares it.
        """
        task = self._next.get(key)
        if task is None:
            # It begins in the loop's next turn: all who are woken in this one share it.
            task = asyncio.create_task(self._run(key, read))
            task.add_done_callback(_mark_retrieved)
            self._next[key] = task
        # One caller that goes must not take the others' read along.
        return await asyncio.shield(task)

    async def _run(self, key: Key, read: Callable[[], Awaitable[Value]]) -> Value:
        before = self._running.get(key)
        if before is not None:
            await asyncio.wait([before])
        self._running[key] = self._next.pop(key)
        try:
            return await read()
        finally:
            del self._running[key]


def _mark_retrieved(task: asyncio.Task[Value]) -> None:
    # Every caller may have gone; an error nobody waits for is no news.
    if not task.cancelled():
        task.exception()
