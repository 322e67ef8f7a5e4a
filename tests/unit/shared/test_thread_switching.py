"""Work in a thread that nothing waits for at the end of the process."""

from __future__ import annotations

import asyncio
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from shared.thread_switching import call_detached, frequent_switches

ROOT = Path(__file__).resolve().parents[3]
_HANGS = """
import asyncio, threading
from shared.thread_switching import call_detached

async def main():
    try:
        async with asyncio.timeout(0.05):
            await call_detached(threading.Event().wait)
    except TimeoutError:
        print("given up")

asyncio.run(main())
"""


async def test_result_and_error_are_those_of_the_function() -> None:
    def fail() -> None:
        raise OSError("no disk")

    assert await call_detached(threading.current_thread) is not threading.main_thread()
    with pytest.raises(OSError, match="no disk"):
        await call_detached(fail)


async def test_thread_may_end_after_its_caller() -> None:
    goes_on, ended = threading.Event(), threading.Event()

    def work() -> None:
        goes_on.wait(60)
        ended.set()

    calling = asyncio.create_task(call_detached(work))
    await asyncio.sleep(0)
    calling.cancel()
    with pytest.raises(asyncio.CancelledError):
        await calling
    goes_on.set()
    assert ended.wait(60)


def test_thread_that_hangs_does_not_hold_up_the_end() -> None:
    """One that reads from a network file system may never return."""
    done = subprocess.run(
        [sys.executable, "-c", _HANGS],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "given up\n", "")


def test_threads_give_way_often_until_the_last_context_is_closed() -> None:
    usual = sys.getswitchinterval()
    with frequent_switches():
        often = sys.getswitchinterval()
        with pytest.raises(OSError, match="no disk"), frequent_switches():
            raise OSError("no disk")
        assert sys.getswitchinterval() == often
    assert often < usual / 5
    assert sys.getswitchinterval() == usual
