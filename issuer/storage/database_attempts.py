"""Whether the running request or command has committed anything yet.

A transaction that PostgreSQL rolled back in favour of another (a deadlock, a failed
serialisation) may be repeated. A whole request or command may be repeated while it has
committed nothing, because it has had no effect.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Final, TypeVar

from issuer.errors import DatabaseConflictError

T = TypeVar("T")
_ATTEMPTS: Final = 3
#: Seconds before the next attempt, in which the other transaction gets its locks.
_PAUSE: Final = 0.02


class TransactionAttempt:
    """One attempt at a request or a command.

    Attributes:
        has_committed: whether a transaction that may have written was committed.
    """

    __slots__ = ("has_committed",)

    def __init__(self) -> None:
        self.has_committed = False


_current: Final[ContextVar[TransactionAttempt | None]] = ContextVar(
    "attempt", default=None
)


@contextmanager
def attempted() -> Iterator[TransactionAttempt]:
    """Begin an attempt; everything inside belongs to it, also the tasks it starts.

    A commit inside also counts for the attempt around it.
    """
    attempt = TransactionAttempt()
    token = _current.set(attempt)
    try:
        yield attempt
    finally:
        _current.reset(token)
        if attempt.has_committed:
            note_commit()


def note_commit() -> None:
    """Note that a transaction that may have written has been or may be committed."""
    attempt = _current.get()
    if attempt is not None:
        attempt.has_committed = True


async def retry_conflicts(
    act: Callable[[], Awaitable[T]], may_retry: Callable[[], bool] = lambda: True
) -> T:
    """Return the result of `act`; repeat it when PostgreSQL rolled it back.

    Args:
        act: does the whole work, from its beginning.
        may_retry: returns whether it can still be repeated.

    Raises:
        DatabaseConflictError: when it was rolled back each time, or after something was
            committed.
    """
    for left in reversed(range(_ATTEMPTS)):
        with attempted() as attempt:
            try:
                return await act()
            except DatabaseConflictError:
                if not left or attempt.has_committed or not may_retry():
                    raise
        await asyncio.sleep(_PAUSE)
    raise AssertionError("unreachable")
