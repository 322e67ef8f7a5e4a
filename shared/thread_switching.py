"""Runs long work in a thread so that the event loop waits as little as possible."""

from __future__ import annotations

import asyncio
import sys
import threading
from collections.abc import Callable
from concurrent.futures import Future
from typing import Final, TypeVar

#: Seconds for which the thread keeps the interpreter while the event loop waits for it.
#: Measured on a busy machine: a ticker of 1 ms beside renderings of 340 series, one
#: after the other, was late by 5.3 ms (median) and 27 ms (p99) with Python's 5 ms, by
#: 0.9 and 15 ms with this; without a rendering by 0.1 and 4.4 ms. Less than this gains
#: nothing.
_SWITCH_INTERVAL: Final = 0.0005
_USUAL_INTERVAL: Final = sys.getswitchinterval()
_Result = TypeVar("_Result")


def switch_often(act: Callable[[], _Result]) -> _Result:
    """Call a function, which other threads may interrupt often; call it in a thread.

    The interval is one for the whole process. Of two calls at the same time the first
    to end restores it for both.
    """
    sys.setswitchinterval(_SWITCH_INTERVAL)
    try:
        return act()
    finally:
        sys.setswitchinterval(_USUAL_INTERVAL)


async def call_detached(act: Callable[[], _Result]) -> _Result:
    """Return the result of a function, which a thread of its own calls.

    The end of the process does not wait for the thread. It waits for the threads of
    `asyncio.to_thread`: one that reads from a file system that hangs would hold up a
    stop.

    Raises:
        Exception: what the function raises.
    """
    outcome: Future[_Result] = Future()
    # From here on it cannot be cancelled, so that the thread may always settle it.
    outcome.set_running_or_notify_cancel()

    def call() -> None:
        try:
            outcome.set_result(act())
        except Exception as error:
            outcome.set_exception(error)

    threading.Thread(target=call, name="detached", daemon=True).start()
    return await asyncio.wrap_future(outcome)
