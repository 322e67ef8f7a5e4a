"""What every package of the issuer is composed from, and what each gives back.

That includes what runs beside the requests of a worker.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Awaitable, Callable, Collection, Sequence
from contextlib import AsyncExitStack, ExitStack, asynccontextmanager, suppress
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Final

from issuer.acts import AuditWriter
from issuer.clock import Clock, ElapsedClock, seconds
from issuer.errors import UnavailableError
from issuer.metrics import IssuerMetrics
from issuer.settings.issuer_settings import IssuerSettings
from issuer.storage.db import Database
from issuer.storage.rate_limits import RateLimits, compose_limits
from shared import log
from shared.steady_time import SteadyTime

if TYPE_CHECKING:
    # A command that makes no routes does not import the framework.
    from fastapi import APIRouter

    from shared.tracing.exporting import Spans

#: How long a task may take to finish its round at the end, and again to end once it is
#: cancelled.
_STOP_SECONDS: Final = 5.0
#: Seconds before a task that runs until its package is stopped is begun again.
_RESTART_SECONDS: Final = 1.0
_LOG: Final = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class BackgroundTask:
    """What runs beside the requests of a worker.

    Attributes:
        act: called each round; after an error the next round follows.
        every: seconds between two rounds; None: `act` runs until its package is
            stopped, and is begun again when it fails.
        delay: seconds before the first round.
    """

    act: Callable[[], Awaitable[object]]
    every: float | None = None
    delay: float = 0.0

    async def run(self, stopping: asyncio.Event) -> None:
        """Do the rounds until `stopping`."""
        pause = _RESTART_SECONDS if self.every is None else self.every
        if self.delay:
            await _wait(stopping, self.delay)
        while not stopping.is_set():
            if await self._do_round() and self.every is None:
                return
            await _wait(stopping, pause)

    async def _do_round(self) -> bool:
        """Return whether the round was done to its end."""
        try:
            await self.act()
        except UnavailableError as error:
            log.event(
                _LOG, logging.WARNING, "background.unavailable", detail=error.detail
            )
        except asyncio.CancelledError:
            task = asyncio.current_task()
            if task is None or task.cancelling():
                raise
            # Not this task was cancelled, but something that the round waited for.
            _LOG.exception("background.failed")
        except Exception:
            # A mistake in one round must not end all later ones unseen.
            _LOG.exception("background.failed")
        else:
            return True
        return False


async def _wait(stopping: asyncio.Event, seconds: float) -> None:
    with suppress(TimeoutError):
        # Not `wait_for`: Python 3.11's loses a cancellation that comes with the event.
        async with asyncio.timeout(seconds):
            await stopping.wait()


async def end_tasks(
    tasks: Sequence[asyncio.Task[None]], patience: float = _STOP_SECONDS
) -> None:
    """Let each finish its round; cancel those that take too long.

    A task that ignores that is left behind: it must not hold up the stop.

    Args:
        tasks: were asked to stop.
        patience: seconds for the round, and again for the end after a cancellation.
    """
    late: Collection[asyncio.Task[None]] = tasks
    if late:
        _, late = await asyncio.wait(late, timeout=patience)
    for task in late:
        task.cancel()
    if late:
        _, late = await asyncio.wait(late, timeout=patience)
    if late:
        log.event(_LOG, logging.ERROR, "background.not_stopped", tasks=len(late))


@asynccontextmanager
async def run_beside(
    tasks: Sequence[BackgroundTask], stop: Callable[[], None]
) -> AsyncIterator[None]:
    """Run the tasks while the body runs.

    Args:
        tasks: what runs.
        stop: called before the tasks are waited for; ends those without rounds.
    """
    stopping = asyncio.Event()
    running = [asyncio.create_task(task.run(stopping)) for task in tasks]
    async with AsyncExitStack() as stack:
        # In reverse, and each whatever an earlier one raises.
        stack.push_async_callback(end_tasks, running)
        stack.callback(stop)
        stack.callback(stopping.set)
        yield


@dataclass(frozen=True, slots=True)
class Foundation:
    """What every package is composed from.

    A part that needs several of these takes the foundation and keeps what it needs.

    `clock` gives the time in milliseconds, `elapsed` the seconds that leases are
    measured by, `prune_time` the Unix seconds to prune by. `audit` records each act
    with the act. `spans` is None unless traces are asked for.
    """

    settings: IssuerSettings
    clock: Clock
    elapsed: ElapsedClock
    database: Database
    metrics: IssuerMetrics
    audit: AuditWriter
    prune_time: Callable[[], int]
    limits: RateLimits
    spans: Spans | None = None

    @classmethod
    def of(
        cls,
        settings: IssuerSettings,
        clock: Clock,
        elapsed: ElapsedClock,
        database: Database,
        metrics: IssuerMetrics,
        audit: AuditWriter,
        spans: Spans | None = None,
    ) -> Foundation:
        """Return the foundation on these; the time and the limits follow from them."""
        prune_time = SteadyTime(partial(seconds, clock), elapsed).now
        limits = compose_limits(
            settings, database, clock=clock, on_limited=metrics.limited
        )
        return cls(
            settings,
            clock,
            elapsed,
            database,
            metrics,
            audit,
            prune_time,
            limits,
            spans,
        )


class Package:
    """The parts of one package, and what the process does with them.

    Attributes:
        hot_routers: routes asked most often. They are tried before all others: finding
            the last of 70 routes took 230 of the 350 us that a request costs in here.
        routers: all other routes.
        provides: the parts that routes ask for, see `issuer.http.dependencies`.
        tasks: what runs beside the requests.
    """

    hot_routers: Sequence[APIRouter] = ()
    routers: Sequence[APIRouter] = ()
    provides: Sequence[object] = ()
    tasks: Sequence[BackgroundTask] = ()

    def stop(self) -> None:
        """End the tasks that run until they are stopped."""

    async def close(self) -> None:
        """Write what must not be lost; give back threads and connections."""


class Packages(Package):
    """Several packages as one.

    Args:
        packages: in the order in which their routes are tried.
    """

    def __init__(self, packages: Sequence[Package]) -> None:
        self._packages = packages
        self.hot_routers = [each for one in packages for each in one.hot_routers]
        self.routers = [each for one in packages for each in one.routers]
        self.provides = [each for one in packages for each in one.provides]
        self.tasks = [each for one in packages for each in one.tasks]

    def stop(self) -> None:
        """Stop each, whatever one of them raises; the error is raised then."""
        with ExitStack() as stack:
            for package in reversed(self._packages):
                stack.callback(package.stop)

    async def close(self) -> None:
        """Close each in their order, whatever one of them raises, as `stop` does."""
        async with AsyncExitStack() as stack:
            for package in reversed(self._packages):
                stack.push_async_callback(package.close)
