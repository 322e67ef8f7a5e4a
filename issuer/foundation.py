"""What every package of the issuer is composed from, and what each gives back."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Final

from fastapi import APIRouter

from issuer.acts import AuditWriter
from issuer.clock import Clock, ElapsedClock
from issuer.errors import UnavailableError
from issuer.metrics import IssuerMetrics
from issuer.settings.issuer_settings import IssuerSettings
from issuer.storage.db import Database
from issuer.storage.rate_limits import RateLimits
from shared import log

#: How long a task may take to finish its round at the end.
_STOP_SECONDS: Final = 5.0
_LOG: Final = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class BackgroundTask:
    """What runs beside the requests of a worker.

    Attributes:
        act: called each round; whatever it raises, the next round comes.
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


async def end_tasks(tasks: Sequence[asyncio.Task[None]]) -> None:
    """Let each finish its round; cancel those that take too long."""
    _, late = await asyncio.wait(tasks, timeout=_STOP_SECONDS)
    for task in late:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)


@dataclass(frozen=True, slots=True)
class Foundation:
    """What every package is composed from.

    `clock` gives the time in milliseconds, `elapsed` the seconds that leases are
    measured by, `prune_time` the Unix seconds to prune by. `audit` records each act
    with the act.
    """

    settings: IssuerSettings
    clock: Clock
    elapsed: ElapsedClock
    database: Database
    metrics: IssuerMetrics
    audit: AuditWriter
    prune_time: Callable[[], int]
    limits: RateLimits


@dataclass(frozen=True, slots=True, kw_only=True)
class Package:
    """The parts of one package; each says in its own file what it does.

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
