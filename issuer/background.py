"""What runs beside the requests of a worker."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from typing import Final

from issuer.errors import UnavailableError
from shared import log

#: How long a task may take to finish its round at the end.
_STOP_SECONDS: Final = 5.0
_LOG: Final = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class BackgroundTask:
    """What runs beside the requests of a worker.

    Attributes:
        act: called each round; after an error the next round follows.
        every: seconds between two rounds; None: `act` runs until its package is
            stopped.
        delay: seconds before the first round.
    """

    act: Callable[[], Awaitable[object]]
    every: float | None = None
    delay: float = 0.0

    async def run(self, stopping: asyncio.Event) -> None:
        """Do the rounds until `stopping`."""
        if self.every is None:
            await self.act()
            return
        if self.delay:
            with suppress(TimeoutError):
                await asyncio.wait_for(stopping.wait(), self.delay)
        while not stopping.is_set():
            await self._do_round()
            with suppress(TimeoutError):
                await asyncio.wait_for(stopping.wait(), self.every)

    async def _do_round(self) -> None:
        try:
            await self.act()
        except UnavailableError as error:
            log.event(
                _LOG, logging.WARNING, "background.unavailable", detail=error.detail
            )
        except Exception:
            # A mistake in one round must not end all later ones unseen.
            _LOG.exception("background.failed")


@asynccontextmanager
async def run_beside(
    tasks: Sequence[BackgroundTask], stop: Callable[[], Awaitable[None]]
) -> AsyncIterator[None]:
    """Run the tasks while the body runs.

    Args:
        tasks: what runs.
        stop: called before the tasks are waited for; ends those without rounds.
    """
    stopping = asyncio.Event()
    running = [asyncio.create_task(task.run(stopping)) for task in tasks]
    try:
        yield
    finally:
        stopping.set()
        await stop()
        await _end(running)


async def _end(tasks: Sequence[asyncio.Task[None]]) -> None:
    """Let each finish its round; cancel those that take too long."""
    _, late = await asyncio.wait(tasks, timeout=_STOP_SECONDS)
    for task in late:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
