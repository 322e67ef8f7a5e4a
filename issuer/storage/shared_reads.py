"""Lets many callers share one read of the database."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Hashable
from typing import Generic, TypeVar

Key = TypeVar("Key", bound=Hashable)
Value = TypeVar("Value")


class SharedReads(Generic[Key, Value]):
    """Runs one read at a time per key; callers during it share the next one.

    Each caller gets the result of a read that began after its call, never of a running
    one: a follower's lease is committed before its page is read, and a confirmation
    reads the followers after its revocation was committed (docs/revocation.md).
    """

    def __init__(self) -> None:
        self._next: dict[Key, asyncio.Task[Value]] = {}
        self._running: dict[Key, asyncio.Task[Value]] = {}

    async def get(self, key: Key, read: Callable[[], Awaitable[Value]]) -> Value:
        """Return the result of `read`, called here or for another caller of this key.

        Raises:
            Whatever `read` raises, in every caller that shares it.
        """
        task = self._next.get(key)
        if task is None:
            # It begins in the loop's next turn: all callers woken in this turn share
            # it.
            task = asyncio.create_task(self._run(key, read))
            task.add_done_callback(_mark_retrieved)
            self._next[key] = task
        # A cancelled caller must not cancel the read of the others.
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
    # All callers may be cancelled; asyncio would log the unread error.
    if not task.cancelled():
        task.exception()
