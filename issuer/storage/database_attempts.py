"""Whether what is being done has committed anything yet.

A transaction that PostgreSQL rolled back for another one's sake (a deadlock, a failed
serialisation) may be tried again. What may be tried again as a whole is a request or a
command that has committed nothing before: then it has had no effect at all.
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
#: Seconds before the next attempt: by then the other transaction has its locks.
_PAUSE: Final = 0.02


class Attempt:
    """One attempt at a request or a command.

    Attributes:
        has_committed: whether a transaction that may have written was committed.
    """

    __slots__ = ("has_committed",)

    def __init__(self) -> None:
        self.has_committed = False


_current: Final[ContextVar[Attempt | None]] = ContextVar("attempt", default=None)


@contextmanager
def attempted() -> Iterator[Attempt]:
    """Give the attempt that all within belongs to, tasks that it starts included.

    What is committed within is committed by the attempt around it, too.
    """
    attempt = Attempt()
    token = _current.set(attempt)
    try:
        yield attempt
    finally:
        _current.reset(token)
        if attempt.has_committed:
            note_commit()


def note_commit() -> None:
    """Note that a transaction which may have written is committed, or may be."""
    attempt = _current.get()
    if attempt is not None:
        attempt.has_committed = True


async def retry_conflicts(
    act: Callable[[], Awaitable[T]], may_retry: Callable[[], bool] = lambda: True
) -> T:
    """Return what `act` returns; try it again when PostgreSQL rolled it back.

    Args:
        act: what is to be done, from its beginning.
        may_retry: whether it can still be done from its beginning.

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
