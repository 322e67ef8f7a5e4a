"""Answers to scrapes of `/metrics`: one rendering a second for all of them (R47).

Rendering takes milliseconds, and a client may scrape as often as it likes. So all
workers together render once a second, in a separate thread, and every scrape of that
second gets the same bytes. Because the workers share the rendering, the numbers do not
fall between two scrapes that different workers answer.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Final, TypeVar

from shared.metrics.worker_metrics import WorkerMetrics
from shared.thread_switching import frequent_switches

_LOG: Final = logging.getLogger(__name__)
#: Seconds for which a rendering is shown.
PERIOD: Final = 1.0
_Result = TypeVar("_Result")


class Scrapes:
    """Renders and publishes the metrics of one worker; create it in the worker.

    Args:
        metrics: rendered at most once a period.
        prepare: brings the numbers up to date; called on the event loop.
        beside: called in the thread each time the numbers are published.
        clock: gives monotonic seconds, the same in all workers.
    """

    def __init__(
        self,
        metrics: WorkerMetrics,
        prepare: Callable[[], None],
        *,
        beside: Callable[[], None],
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._metrics = metrics
        self._prepare = prepare
        self._beside = beside
        self._clock = clock
        self._stamp = float("-inf")
        self._page = b""
        self._rendering: asyncio.Task[bytes] | None = None
        # Not the loop's own threads: name look-ups can occupy all of those.
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="metrics")

    async def body(self) -> bytes:
        """Return the metrics of all workers, at most a second old.

        Raises:
            Exception: what rendering raises; the next scrape tries again.
        """
        self._see_page()
        if self._clock() - self._stamp < PERIOD:
            return self._page
        if self._rendering is None:
            self._rendering = asyncio.create_task(self._render())
        # The client that asked first may go while the others wait.
        return await asyncio.shield(self._rendering)

    async def publish(self) -> None:
        """Publish this worker's numbers to the other workers; called once a second.

        It does not raise, because the caller's other work must go on.
        """
        try:
            self._prepare()
            await self._run(self._publish)
        except Exception:
            _LOG.exception("metrics.not_published")

    def _publish(self) -> None:
        self._beside()
        self._metrics.publish()

    async def _run(self, act: Callable[[], _Result]) -> _Result:
        loop = asyncio.get_running_loop()
        with frequent_switches():
            return await loop.run_in_executor(self._thread, act)

    async def close(self) -> None:
        """Publish the last numbers and end the thread."""
        await self.publish()
        self._thread.shutdown(wait=False)

    def _see_page(self) -> None:
        """Use the newest rendering of another worker, if there is one."""
        if self._metrics.slot is None:
            return
        newest = self._metrics.slot.read_page()
        if newest is not None and newest.stamp > self._stamp:
            self._stamp, self._page = newest.stamp, newest.payload

    async def _render(self) -> bytes:
        try:
            stamp = self._clock()
            self._prepare()
            page = await self._run(self._metrics.render)
            if self._metrics.slot is not None:
                self._metrics.slot.write_page(stamp, page)
            if stamp > self._stamp:
                self._stamp, self._page = stamp, page
            return page
        finally:
            self._rendering = None
