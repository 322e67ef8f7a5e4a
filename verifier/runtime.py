"""One worker's life: builds the gate and runs what stands beside it.

The only place where the verifier's parts are put together. It runs inside the ASGI
lifespan, so that it is the same under uvicorn alone and under gunicorn's workers.
"""

from __future__ import annotations

import asyncio
import contextlib
import gc
import logging
import os
import random
import signal
import socket
import time
import uuid
from collections.abc import AsyncIterator, Coroutine, Iterator
from typing import Any, Final

import uvicorn

from shared.log import event
from verifier.admin import Watched, build_admin
from verifier.cache import FactCache
from verifier.edge import Edge, trust_peers
from verifier.fetch import HttpSource
from verifier.gate import Edges, Gate
from verifier.metrics import VerifierMetrics
from verifier.policy import PolicyBook
from verifier.settings import VerifierSettings
from verifier.sync import (
    FeedFollower,
    FeedSource,
    KeysRefresher,
    Pace,
    TrustHolder,
    follow,
    new_breaker,
    prune,
)

_LOG: Final = logging.getLogger(__name__)
#: Seconds between two moves of the gate's counts into the metrics.
_FLUSH_PERIOD: Final = 1.0
#: Seconds between two looks for connections whose time is up.
_SWEEP_PERIOD: Final = 0.5


class AdminServer(uvicorn.Server):
    """A second server in the same process, which leaves the signals to the first."""

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Capture none."""
        yield


class Runtime:
    """Builds one worker's parts from settings and policies.

    Args:
        settings: the verifier's settings.
        policies: every policy by name.
        admin_socket: the operators' listening socket, shared by all workers.
        parent_pid: the process whose end is ours; None when we are on our own.
    """

    def __init__(
        self,
        settings: VerifierSettings,
        policies: PolicyBook,
        admin_socket: socket.socket,
        parent_pid: int | None = None,
    ) -> None:
        self._settings = settings
        self._policies = policies
        self._admin_socket = admin_socket
        self._parent_pid = parent_pid

    @contextlib.asynccontextmanager
    async def lifespan(self) -> AsyncIterator[Edge]:
        """Open everything, give the edge, and close everything in turn."""
        settings = self._settings
        trust = TrustHolder()
        source = HttpSource(settings.ca_file or None)
        feed = FeedFollower(self._feed_source(), source.fetch, trust)
        keys = KeysRefresher(
            settings.jwks_url, source.fetch, trust, keys_max_age=settings.keys_max_age
        )
        gate = Gate(
            self._policies,
            Edges(
                snapshot=lambda: trust.snapshot,
                now=_now,
                monotonic=time.monotonic,
                ask_for_keys=lambda: keys.ask(time.monotonic()),
            ),
            lambda: FactCache(
                max_entries=settings.cache_entries, max_bytes=settings.cache_bytes
            ),
        )
        edge = Edge(
            gate,
            trust_peers(settings.trusted_peers),
            settings.max_connections,
            time.monotonic(),
        )
        metrics = VerifierMetrics(gate, trust, feed, keys)
        admin = build_admin(
            Watched(trust, feed, keys, self._policies, metrics, _now, time.monotonic)
        )
        pace = Pace(asyncio.sleep, random.random)

        async def rest_feed() -> None:
            await feed.rest(asyncio.sleep)

        async def rest_keys() -> None:
            await keys.wait(keys.period)

        tasks: list[Coroutine[Any, Any, None]] = [
            follow(feed, new_breaker("feed"), pace, rest_feed),
            follow(keys, new_breaker("jwks"), pace, rest_keys),
            prune(trust, _now, asyncio.sleep),
            _flush(metrics),
            _sweep(edge),
        ]
        if self._parent_pid is not None:
            tasks.append(_watch_parent(self._parent_pid))
        async with _running(tasks), self._serve_admin(admin):
            _calm_collector()
            event(_LOG, logging.INFO, "verifier.started", bind=settings.bind)
            yield edge
        await source.close()

    def _feed_source(self) -> FeedSource:
        return FeedSource(
            url=self._settings.feed_url,
            token=self._settings.feed_token.get_secret_value(),
            issuer=self._settings.issuer_url,
            follower_id=str(uuid.uuid4()),
            max_staleness=self._settings.max_staleness,
        )

    @contextlib.asynccontextmanager
    async def _serve_admin(self, admin: Any) -> AsyncIterator[None]:
        server = AdminServer(
            uvicorn.Config(
                admin,
                http="httptools",
                ws="none",
                lifespan="off",
                log_config=None,
                access_log=False,
                server_header=False,
                proxy_headers=False,
            )
        )
        task = asyncio.create_task(server.serve(sockets=[self._admin_socket.dup()]))
        try:
            yield
        finally:
            server.should_exit = True
            await task


def _calm_collector() -> None:
    """Let the cycle collector look seldom: a check makes no cycles.

    Every kept fact is a handful of objects that it would walk again and again. Measured
    while 80,000 facts came in: 1.35 s of CPU and pauses up to 140 ms before, 0.71 s and
    5 ms with this.
    """
    gc.collect()
    gc.freeze()
    gc.set_threshold(50_000, 50, 1_000)


def _now() -> int:
    return int(time.time())


async def _flush(metrics: VerifierMetrics) -> None:
    while True:
        await asyncio.sleep(_FLUSH_PERIOD)
        metrics.flush()


async def _sweep(edge: Edge) -> None:
    while True:
        await asyncio.sleep(_SWEEP_PERIOD)
        edge.sweep(time.monotonic())


async def _watch_parent(parent_pid: int) -> None:
    """End with our parent: an orphan would go on answering on the shared socket."""
    while os.getppid() == parent_pid:  # noqa: ASYNC110  nothing tells us of it
        await asyncio.sleep(1.0)
    event(_LOG, logging.ERROR, "verifier.orphaned")
    os.kill(os.getpid(), signal.SIGTERM)


@contextlib.asynccontextmanager
async def _running(
    coroutines: list[Coroutine[Any, Any, None]],
) -> AsyncIterator[None]:
    tasks = [asyncio.create_task(coroutine) for coroutine in coroutines]
    try:
        yield
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
