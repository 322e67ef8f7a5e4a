"""Runs one worker: starts its parts and background tasks, and stops them in order.

`verifier/composition.py` composes the parts. The runtime is inside the ASGI lifespan,
so it is the same with one process and with several workers.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import socket
import time
from collections.abc import AsyncIterator, Callable, Coroutine
from functools import partial
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from starlette.applications import Starlette

from shared import collector
from shared.log import event
from shared.metrics.scrapes import Scrapes
from shared.metrics.worker_metrics import MetricsBoard, TakenSlot
from shared.outgoing.authorities import Authorities
from shared.outgoing.names import resolve_apart
from shared.serving.operators_port import serve_operators
from shared.serving.server import Lifecycle
from shared.shortages import Shortages, raise_descriptor_limit
from verifier.check.gate import Gate
from verifier.check.policy import PolicyBook
from verifier.composition import TrustTasks, compose
from verifier.native.gateways import Gateways
from verifier.operators.admin import AdminDependencies, build_admin
from verifier.operators.browser_guard import admin_host
from verifier.operators.decision_log import RECORDS, DecisionBoard, DecisionLog
from verifier.operators.metrics import VerifierMetrics, WorkerParts
from verifier.operators.worker_board import WorkerBoard, WorkerState
from verifier.reloading.files import Files
from verifier.reloading.reload import ReloadedParts, Reloader, ReloadReport
from verifier.reloading.watch import PolicyWatch
from verifier.settings import VerifierSettings
from verifier.start_waits import StartWaits
from verifier.sync.clock import boottime
from verifier.sync.fetch import HttpSource
from verifier.sync.goodbye import say_goodbye, stop_answering
from verifier.sync.staleness import StalenessWatch, staleness_of
from verifier.wire.connections import trust_peers
from verifier.wire.public_port import PublicPort

if TYPE_CHECKING:
    from shared.tracing.exporting import Spans
    from verifier.wire.grpc.server import GrpcPort

_LOG: Final = logging.getLogger(__name__)
#: Seconds between two flushes of the gate's counts into the metrics.
_BEAT_PERIOD: Final = 1.0
#: Seconds between two sweeps of connections whose deadline has passed.
_SWEEP_PERIOD: Final = 0.5
#: Decisions written to the board at once; 100 take less than 1 ms.
_RECORDS_AT_ONCE: Final = 100
#: A check makes no cycles, but the collector walks the objects of every kept fact.
#: Measured while 80,000 facts were added: 0.14 to 0.39 s in the collector and pauses of
#: 24 ms at Python's own pace, 0.07 to 0.19 s and 6 to 29 ms at this one. Requests to
#: issuers do make cycles. With 50,000 in place of 10,000 they waited longer, and a
#: worker had 4 to 5 MiB more after some minutes (loadtests/SOAK.md).
_COLLECTOR_PACE: Final = collector.Pace(young=10_000, middle=250, old=1_000)


class WorkerContext(NamedTuple):
    """The objects that a worker shares with the other workers.

    Attributes:
        admin_socket: the operators' listening socket, shared by all workers.
        board: the states of all workers.
        slot: of this worker on the board.
        lifecycle: whether this worker serves well, and whether it drains.
        decisions: the last decisions of all workers.
        metrics: the metrics of all workers; None with one worker.
        on_policies: called when a changed policy file came into force without a reload.
        grpc_target: where to listen for gRPC, in grpcio's form; empty for nowhere.
        spans: of this process; None unless traces are asked for.
        native: the kind of gateways that check tokens by themselves; empty for none.
    """

    admin_socket: socket.socket
    board: WorkerBoard
    slot: int
    lifecycle: Lifecycle
    decisions: DecisionBoard
    metrics: MetricsBoard | None = None
    on_policies: Callable[[], None] = lambda: None
    grpc_target: str = ""
    spans: Spans | None = None
    native: str = ""


class _Operators(NamedTuple):
    """This worker's side of the operators' port.

    Attributes:
        application: of the operators' port.
        scrapes: the answers of `/metrics`.
        report: writes the state of this worker to the board.
    """

    application: Starlette
    scrapes: Scrapes
    report: Callable[[], None]


class Runtime:
    """Builds one worker's parts from settings and policies.

    Args:
        settings: the verifier's settings.
        policies: every policy by name.
        context: the objects that the worker shares with the others.
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
        self._grpc: GrpcPort | None = None

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

    def drain(self) -> None:
        """Begin to end the connections of gRPC; the server ends those of HTTP."""
        if self._grpc is not None:
            self._grpc.drain()

    @contextlib.asynccontextmanager
    async def lifespan(self) -> AsyncIterator[PublicPort]:
        """Start all parts, yield the public port, and stop everything in order."""
        collector.set_pace(_COLLECTOR_PACE)
        raise_descriptor_limit()
        resolve_apart(asyncio.get_running_loop())
        await self._read_files()
        source = HttpSource(self._files.authorities, self._context.spans)
        context = self._context
        parts = compose(
            self._files,
            source,
            context.decisions,
            context.slot,
            context.spans,
            context.native,
        )
        trust_tasks = TrustTasks(self._files, parts)
        reloads = ReloadReport()
        self._reloader = self._make_reloader(parts, source, reloads)
        port = self._make_port(parts.gate)
        operators = self._compose_operators(parts, port, reloads, trust_tasks)
        tasks = [
            *trust_tasks.coroutines(),
            _beat(operators.scrapes, operators.report, parts),
            _sweep(port, parts.decisions),
            *self._watch(self._reloader),
        ]
        async with serve_operators(operators.application, self._context.admin_socket):
            if self._is_reload_due:
                tasks.append(self._reloader.reload())
            async with _running(tasks), _writing(parts.gateways):
                waits = StartWaits(
                    self._settings.start_wait, context.board, context.lifecycle
                )
                await waits.for_trust(parts.trust)
                await waits.for_others(parts.others)
                collector.exempt_what_is_there()
                bind = self._settings.bind
                async with self._serving_grpc(parts.gate):
                    # Other workers answer for this one, too.
                    operators.report()
                    event(_LOG, logging.INFO, "verifier.started", bind=bind)
                    yield port
            # The server has drained, and the feed is not followed any more.
            stop_answering(parts.trust, port.abort_all)
            if parts.gateways is None:
                # Gateways let requests pass until their window is over.
                await say_goodbye(parts.feed, parts.copy, source.post)
        await operators.scrapes.close()
        parts.copy.close()
        await source.close()

    async def _read_files(self) -> None:
        """Read the files once more: they were read before this worker was forked."""
        self._is_reading = True
        renewed = await asyncio.to_thread(self._files.renew)
        if renewed.word != "unchanged":
            renewed.write(_LOG)

    def _make_reloader(
        self, parts: WorkerParts, source: HttpSource, reloads: ReloadReport
    ) -> Reloader:
        reloaded = ReloadedParts(
            parts.gate,
            parts.feed,
            parts.copy,
            source.renew_authorities,
            parts.others.follow,
            self._context.on_policies,
        )
        return Reloader(self._files, reloaded, reloads, now=_now, boottime=boottime)

    def _watch(self, reloader: Reloader) -> list[Coroutine[Any, Any, None]]:
        settings, period = self._settings, self._settings.policy_watch
        if not settings.policy_file or not period:
            return []
        paths = settings.policy_file, settings.issuers_file
        return [PolicyWatch(paths, period, reloader).run()]

    def _make_port(self, gate: Gate) -> PublicPort:
        settings = self._settings
        peers = trust_peers(settings.trusted_peers)
        return PublicPort(gate, peers, settings.max_connections, time.monotonic())

    @contextlib.asynccontextmanager
    async def _serving_grpc(self, gate: Gate) -> AsyncIterator[None]:
        """Serve gRPC while the context is open, if an address is set."""
        target, settings = self._context.grpc_target, self._settings
        if not target:
            yield
            return
        # An extra, which is not installed everywhere. grpcio must be loaded after the
        # fork: its threads do not live on in a child.
        from verifier.wire.grpc.server import GrpcPort

        peers = trust_peers(settings.trusted_peers)
        limit, networks = settings.max_connections, settings.trusted_peers
        self._grpc = GrpcPort(gate, peers, target, limit, networks)
        async with self._grpc.serving():
            yield

    def _compose_operators(
        self,
        parts: WorkerParts,
        port: PublicPort,
        reloads: ReloadReport,
        trust_tasks: TrustTasks,
    ) -> _Operators:
        metrics = VerifierMetrics(
            parts,
            port=port,
            reloads=reloads,
            slot=self._take_metrics_slot(),
        )
        shortages = Shortages()
        scrapes = Scrapes(metrics.together, metrics.flush, beside=shortages.look)
        report = partial(self._report, parts, shortages, trust_tasks)
        dependencies = AdminDependencies(
            parts,
            scrapes,
            self._context.board,
            report,
            self._context.lifecycle,
            _now,
            boottime,
            reloads,
            admin_host(self._settings.admin_bind),
        )
        return _Operators(build_admin(dependencies), scrapes, report)

    def _take_metrics_slot(self) -> TakenSlot | None:
        board = self._context.metrics
        return None if board is None else board.take_over(self._context.slot)

    @property
    def _is_grpc_silent(self) -> bool:
        """Whether a port for gRPC is wanted and not open, or does not answer."""
        is_wanted = bool(self._context.grpc_target)
        return is_wanted and (self._grpc is None or not self._grpc.is_answering)

    def _report(
        self, parts: WorkerParts, shortages: Shortages, trust_tasks: TrustTasks
    ) -> None:
        snapshot, feed, gateways = parts.trust.snapshot, parts.feed, parts.gateways
        has_older = gateways is not None and gateways.has_older_policies
        state = WorkerState(
            pid=os.getpid(),
            position=feed.position,
            fresh_until=snapshot.own.fresh_until,
            keys_until=snapshot.own.keys_until,
            entries=len(snapshot.own.revocations),
            is_loading=not trust_tasks.has_started,
            epoch=feed.epoch or "",
            has_no_descriptors=shortages.has_no_descriptors,
            has_dropped_lines=shortages.has_dropped_lines,
            has_older_policies=bool(self._files.policy_error) or has_older,
            is_grpc_silent=self._is_grpc_silent,
            lacks_gateway=gateways is not None and gateways.is_alone,
            has_failing_gateway=gateways is not None and gateways.failing > 0,
        )
        self._context.board.write(self._context.slot, state)


def _now() -> int:
    return int(time.time())


async def _beat(
    scrapes: Scrapes, report: Callable[[], None], parts: WorkerParts
) -> None:
    """Publish the state and the metrics of this worker every second."""
    watch = StalenessWatch()
    while True:
        fresh_until = parts.trust.snapshot.own.fresh_until
        watch.update(staleness_of(parts.feed.status, fresh_until, boottime()))
        report()
        await scrapes.publish()
        await asyncio.sleep(_BEAT_PERIOD)


@contextlib.asynccontextmanager
async def _writing(gateways: Gateways | None) -> AsyncIterator[None]:
    """Write into gateways while the context is open, if there are any."""
    if gateways is None:
        yield
        return
    async with gateways.writers.writing():
        event(_LOG, logging.INFO, "native.started", kind=gateways.kind)
        yield


async def _sweep(port: PublicPort, decisions: DecisionLog) -> None:
    gate = port.gate
    while True:
        await asyncio.sleep(_SWEEP_PERIOD)
        for log in (gate.refusals, gate.shadow_refusals):
            log.refill(time.monotonic())
        for _ in range(RECORDS // _RECORDS_AT_ONCE):
            decisions.publish(_RECORDS_AT_ONCE)
            await asyncio.sleep(0)
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
