"""Builds the parts of one worker, and runs its background tasks.

This is the only module that puts the verifier's parts together. It runs inside the ASGI
lifespan, so it is the same with one process and with several workers.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import random
import socket
import time
import uuid
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator
from functools import partial
from pathlib import Path
from typing import Any, Final, NamedTuple, cast

import uvicorn

from shared import collector
from shared.log import event
from shared.outgoing.authorities import Authorities
from shared.scrapes import Scrapes
from shared.serving.limits import OPERATORS
from shared.serving.port import Port
from shared.serving.server import Lifecycle
from shared.shortages import Shortages, raise_descriptor_limit
from shared.steady_time import SteadyTime
from shared.worker_metrics import MetricsBoard, TakenSlot
from verifier.check.cache import FactCache
from verifier.check.gate import Gate, GateDependencies
from verifier.check.policy import PolicyBook
from verifier.check.refusal_log import RefusalLog
from verifier.check.trust import Trust
from verifier.disk.compaction import keep_compact
from verifier.disk.copy_file import Identity
from verifier.disk.copy_format import derive_key
from verifier.disk.disk_copy import DiskCopy
from verifier.operators.admin import AdminDependencies, build_admin
from verifier.operators.metrics import VerifierMetrics, WorkerParts
from verifier.operators.worker_board import WorkerBoard, WorkerState
from verifier.reloading.files import Files
from verifier.reloading.reload import ReloadedParts, Reloader, ReloadReport
from verifier.settings import VerifierSettings
from verifier.sync.canary import CanaryWatch
from verifier.sync.clock import boot_identity, boottime
from verifier.sync.cold_start import AgeLimits, ColdStart
from verifier.sync.fetch import HttpSource
from verifier.sync.goodbye import say_goodbye, stop_answering
from verifier.sync.source_report import SourceReport, feed_source, keys_source
from verifier.sync.staleness import StalenessWatch, staleness_of
from verifier.sync.sync import FeedFollower, FeedSource, KeysRefresher
from verifier.sync.sync_tasks import TaskTiming, follow, new_breaker, prune
from verifier.wire.connections import trust_peers
from verifier.wire.public_port import PublicPort

_LOG: Final = logging.getLogger(__name__)
#: Seconds between two flushes of the gate's counts into the metrics.
_BEAT_PERIOD: Final = 1.0
#: Seconds between two checks whether a starting worker has keys and revocations.
_LOOK_FOR_TRUST: Final = 0.02
#: Seconds a starting worker waits at most while another worker has keys and
#: revocations; less than the supervisor waits for a worker.
_LONGEST_START_WAIT: Final = 60.0
#: Seconds between two sweeps of connections whose deadline has passed.
_SWEEP_PERIOD: Final = 0.5
#: A check makes no cycles, but the collector walks the objects of every kept fact.
#: Measured while 80,000 facts were added: 1.35 s of CPU and pauses up to 140 ms before,
#: 0.71 s and 5 ms with this; a million revocations read from disk: pauses of 670 ms
#: before, 90 ms.
_COLLECTOR_PACE: Final = collector.Pace(young=50_000, middle=50, old=1_000)


class AdminServer(uvicorn.Server):
    """A second server in the same process; the first one handles the signals."""

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Override uvicorn's method: capture no signals."""
        yield


class WorkerContext(NamedTuple):
    """What a worker shares with the other workers.

    Attributes:
        admin_socket: the operators' listening socket, shared by all workers.
        board: the states of all workers.
        slot: of this worker on the board.
        lifecycle: whether this worker serves well, and whether it drains.
        metrics: the metrics of all workers; None with one worker.
    """

    admin_socket: socket.socket
    board: WorkerBoard
    slot: int
    lifecycle: Lifecycle
    metrics: MetricsBoard | None = None


class Runtime:
    """Builds one worker's parts from settings and policies.

    Args:
        settings: the verifier's settings.
        policies: every policy by name.
        context: what the worker shares with the others.
        authorities: the certificate authorities for the issuer.
    """

    def __init__(
        self,
        settings: VerifierSettings,
        policies: PolicyBook,
        context: WorkerContext,
        authorities: Authorities,
    ) -> None:
        self._files = Files(settings, policies, authorities)
        self._reloader: Reloader | None = None
        self._is_reading = False
        self._is_reload_due = False
        self._context = context
        self._has_started = asyncio.Event()

    @property
    def _settings(self) -> VerifierSettings:
        return self._files.settings

    async def reload(self) -> None:
        """Read the files again and put usable content in force; never raise.

        Call it from the event loop of `lifespan`. Before the start it does nothing,
        because a start reads the files itself. While the start reads them, the reload
        is done afterwards: the files may have changed after they were read.
        """
        if self._reloader is not None:
            await self._reloader.reload()
        else:
            self._is_reload_due = self._is_reading

    @contextlib.asynccontextmanager
    async def lifespan(self) -> AsyncIterator[PublicPort]:
        """Start all parts, yield the public port, and stop everything in order."""
        collector.set_pace(_COLLECTOR_PACE)
        raise_descriptor_limit()
        # Read before this worker was forked, which may be long ago.
        self._is_reading = True
        renewed = await asyncio.to_thread(self._files.renew)
        if renewed.word != "unchanged":
            renewed.write(_LOG)
        settings = self._settings
        source = HttpSource(self._files.authorities)
        parts = self._build(source)
        reloads = ReloadReport()
        self._reloader = Reloader(
            self._files,
            ReloadedParts(parts.gate, parts.feed, parts.copy, source.renew_authorities),
            reloads,
            now=_now,
            boottime=boottime,
        )
        port = PublicPort(
            parts.gate,
            trust_peers(settings.trusted_peers),
            settings.max_connections,
            time.monotonic(),
        )
        metrics = VerifierMetrics(
            parts,
            refused=port.admission.refused,
            reloads=reloads,
            slot=self._take_metrics_slot(),
        )
        shortages = Shortages()
        scrapes = Scrapes(metrics.together, metrics.flush, beside=shortages.look)
        report = partial(self._report, parts, shortages)
        admin = build_admin(
            AdminDependencies(
                parts,
                scrapes,
                self._context.board,
                report,
                self._context.lifecycle,
                _now,
                boottime,
                reloads,
            )
        )
        tasks = [
            self._start_cold(parts),
            *self._background(parts),
            _beat(scrapes, report, parts),
            _sweep(port),
        ]
        async with self._serve_admin(admin):
            if self._is_reload_due:
                tasks.append(self._reloader.reload())
            async with _running(tasks):
                await self._wait_for_trust(parts.trust)
                collector.exempt_what_is_there()
                event(_LOG, logging.INFO, "verifier.started", bind=settings.bind)
                yield port
            # The server has drained, and the feed is not followed any more.
            stop_answering(parts.trust, port.abort_all)
            await say_goodbye(parts.feed, parts.copy, source.post)
        await scrapes.close()
        parts.copy.close()
        await source.close()

    async def _wait_for_trust(self, trust: Trust) -> None:
        """Wait for keys and a complete list, so that the first answer is not 503.

        They come from the disk or from the issuer. Without them this worker serves all
        the same after `start_wait`, and answers 503. It waits longer while another
        worker has them, because that worker can answer the checks.
        """
        begun = boottime()
        ends_at = begun + self._settings.start_wait
        while True:
            now, snapshot = boottime(), trust.snapshot
            if now < snapshot.fresh_until and now < snapshot.keys_until:
                return
            if now < begun + _LONGEST_START_WAIT and self._is_another_good(now):
                ends_at = max(ends_at, now)
            if now > ends_at or self._context.lifecycle.is_draining:
                self._context.lifecycle.is_good = False
                return
            await asyncio.sleep(_LOOK_FOR_TRUST)

    def _is_another_good(self, now: float) -> bool:
        return any(
            now < state.fresh_until and now < state.keys_until
            for state in self._context.board.read()
            if state.pid != os.getpid()
        )

    def _build(self, source: HttpSource) -> WorkerParts:
        settings = self._settings
        trust = Trust(settings.issuer_url)
        canary = CanaryWatch(time.time)
        follower_id = str(uuid.uuid4())
        copy = self._disk_copy(follower_id)
        feed = FeedFollower(
            self._feed_source(follower_id),
            source.fetch,
            trust,
            copy=copy,
            on_entries=canary.observe,
        )
        keys = KeysRefresher(
            settings.jwks_url,
            source.fetch,
            trust,
            issuer=settings.issuer_url,
            keys_max_age=settings.keys_max_age,
            follower_id=follower_id,
            copy=copy,
        )
        gate = Gate(
            self._files.policies,
            GateDependencies(
                trust=trust,
                now=time.time,
                boottime=boottime,
                request_keys=lambda: keys.request(boottime()),
                refusals=RefusalLog(settings.refusal_log_rate, trust, time.monotonic()),
            ),
            lambda: FactCache(
                max_entries=settings.cache_entries, max_bytes=settings.cache_bytes
            ),
        )
        return WorkerParts(gate, trust, feed, keys, copy, canary)

    def _disk_copy(self, follower_id: str) -> DiskCopy:
        settings = self._settings
        key = derive_key(settings.feed_token.get_secret_value())
        identity = Identity(key, settings.issuer_url, follower_id, boot_identity())
        return DiskCopy(identity, settings.max_staleness, boottime, time.time)

    def _feed_source(self, follower_id: str) -> FeedSource:
        return FeedSource(
            url=self._settings.feed_url,
            token=self._settings.feed_token.get_secret_value(),
            issuer=self._settings.issuer_url,
            follower_id=follower_id,
            max_staleness=self._settings.max_staleness,
            allows_stale=self._files.policies.allows_stale,
        )

    def _take_metrics_slot(self) -> TakenSlot | None:
        board = self._context.metrics
        return None if board is None else board.take_over(self._context.slot)

    def _report(self, parts: WorkerParts, shortages: Shortages) -> None:
        snapshot, feed = parts.trust.snapshot, parts.feed
        state = WorkerState(
            pid=os.getpid(),
            position=feed.position,
            fresh_until=snapshot.fresh_until,
            keys_until=snapshot.keys_until,
            entries=len(snapshot.revocations),
            is_loading=not self._has_started.is_set(),
            epoch=feed.epoch or "",
            has_no_descriptors=shortages.has_no_descriptors,
            has_dropped_lines=shortages.has_dropped_lines,
        )
        self._context.board.write(self._context.slot, state)

    async def _start_cold(self, parts: WorkerParts) -> None:
        """Read the disk copies, then let the other tasks follow the two sources."""
        settings, copy = self._settings, parts.copy
        limits = AgeLimits(
            settings.max_staleness, settings.keys_max_age, boottime, time.time
        )
        try:
            if settings.state_dir:
                directory = Path(settings.state_dir)
                start = ColdStart(directory, copy, settings.workers, limits)
                await start.run(parts.trust, parts.feed)
        except Exception as error:
            # A copy written by a faulty program must not stop this one from following
            # the issuer.
            _LOG.exception("copy.unreadable")
            copy.lose(error)
        self._has_started.set()

    def _background(self, parts: WorkerParts) -> list[Coroutine[Any, Any, None]]:
        _, trust, feed, keys, copy, _ = parts
        timing = TaskTiming(asyncio.sleep, random.random)
        prune_time = SteadyTime(time.time, boottime).now

        async def rest_feed() -> None:
            await feed.pause(asyncio.sleep)

        async def rest_keys() -> None:
            await keys.wait(keys.period)

        async def follow_feed() -> None:
            await self._has_started.wait()
            report = SourceReport(feed_source(self._settings), boottime)
            await follow(feed, new_breaker("feed"), timing, rest_feed, report)

        async def follow_keys() -> None:
            await self._has_started.wait()
            report = SourceReport(keys_source(self._settings), boottime)
            await follow(keys, new_breaker("jwks"), timing, rest_keys, report)

        async def tend_copy() -> None:
            await self._has_started.wait()
            await keep_compact(
                copy, lambda: len(trust.snapshot.revocations), prune_time, asyncio.sleep
            )

        return [
            follow_feed(),
            follow_keys(),
            tend_copy(),
            prune(trust, prune_time, asyncio.sleep),
        ]

    @contextlib.asynccontextmanager
    async def _serve_admin(self, admin: Any) -> AsyncIterator[None]:
        server = AdminServer(
            uvicorn.Config(
                admin,
                http=cast(Any, Port("operators", OPERATORS)),
                ws="none",
                lifespan="off",
                log_config=None,
                access_log=False,
                server_header=False,
                proxy_headers=False,
                # A peer that reads slowly would otherwise delay the stop without limit.
                timeout_graceful_shutdown=1,
            )
        )
        task = asyncio.create_task(
            server.serve(sockets=[self._context.admin_socket.dup()])
        )
        try:
            yield
        finally:
            server.should_exit = True
            await task


def _now() -> int:
    return int(time.time())


async def _beat(
    scrapes: Scrapes, report: Callable[[], None], parts: WorkerParts
) -> None:
    """Publish the state and the metrics of this worker every second."""
    watch = StalenessWatch()
    while True:
        fresh_until = parts.trust.snapshot.fresh_until
        watch.update(staleness_of(parts.feed.status, fresh_until, boottime()))
        report()
        await scrapes.publish()
        await asyncio.sleep(_BEAT_PERIOD)


async def _sweep(port: PublicPort) -> None:
    while True:
        await asyncio.sleep(_SWEEP_PERIOD)
        port.gate.refusals.refill(time.monotonic())
        await port.sweep(time.monotonic())


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
