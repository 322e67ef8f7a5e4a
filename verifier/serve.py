"""Serves the verifier: one process, or workers under a supervisor.

WebSocket support is off. With it uvicorn would refuse the `Upgrade` that Caddy passes
on, and so every WebSocket behind the gate (R41).
"""

from __future__ import annotations

import contextlib
import math
import os
import socket
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, NamedTuple

import uvicorn

from shared import collector, log
from shared.configuration.settings import SettingsError
from shared.listening import listening, reserving
from shared.metrics.worker_metrics import MetricsBoard
from shared.outgoing.authorities import Authorities
from shared.serving.server import (
    Duties,
    Lifecycle,
    WorkerServer,
    longest_drain,
    run_server,
)
from shared.serving.workers.supervisor import Patience, Slot, Supervisor, slots_for
from shared.serving.workers.worker_link import RENEW
from shared.tracing.environment import wants_traces
from shared.tracing.running import running_spans
from verifier.check.policy import PolicyBook
from verifier.native.gateways import ENVOY, HAPROXY
from verifier.native.haproxy.sole_writer import SecondWriterError, sole_writer
from verifier.operators.decision_log import DecisionBoard
from verifier.operators.worker_board import WorkerBoard
from verifier.reloading.files import Files
from verifier.runtime import Runtime, WorkerContext
from verifier.settings import VerifierSettings
from verifier.sync.goodbye import GOODBYE_TIMEOUT
from verifier.sync.own_requests import log_context
from verifier.wire.budgets import RECEIVE_BUFFER
from verifier.wire.hosting import LifespanApp, gate_protocol

if TYPE_CHECKING:
    from shared.tracing.exporting import Spans

#: Longer than any gateway keeps an idle connection (nginx 60 s), seconds.
KEEP_ALIVE: Final = 75
#: Seconds that open requests have to finish at a stop.
GRACE: Final = 10
#: Bytes for the metrics of one worker, which take about 10,000.
METRICS_SLOT_BYTES: Final = 65_536

SERVER: Final[dict[str, Any]] = {
    "http": gate_protocol,
    "loop": "uvloop",
    "ws": "none",
    "lifespan": "on",
    "log_config": None,
    "access_log": False,
    "server_header": False,
    "date_header": False,
    "proxy_headers": False,
    "timeout_keep_alive": KEEP_ALIVE,
    "timeout_graceful_shutdown": GRACE,
}


def run(
    settings: VerifierSettings,
    policies: PolicyBook,
    authorities: Authorities,
    native: str = "",
) -> int:
    """Serve until a stop; return the exit status.

    Args:
        settings: the verifier's.
        policies: every policy by name.
        authorities: read before any worker starts, so a worker that starts while the
            file cannot be used has the last good ones.
        native: the kind of gateways that check tokens by themselves, with one worker;
            empty for none.

    Raises:
        SettingsError: when an address cannot be listened on, HAProxy's directory is
            not ours alone, or traces are asked for and cannot be made.
        SystemExit: when the only process could not start.
    """
    is_traced = wants_traces(os.environ)
    log.configure("verifier", settings.log_level, log_context)
    with contextlib.ExitStack() as stack:
        admin = stack.enter_context(
            listening("VERIFIER_ADMIN_BIND", settings.admin_bind)
        )
        main = stack.enter_context(listening("VERIFIER_BIND", settings.bind))
        # Accepted connections inherit this.
        main.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, RECEIVE_BUFFER)
        grpc_target = ""
        if settings.grpc_bind:
            grpc_target = stack.enter_context(
                reserving("VERIFIER_GRPC_BIND", settings.grpc_bind)
            )
        sockets = _Sockets(main, admin, grpc_target)
        if native == ENVOY:
            stack.enter_context(reserving("VERIFIER_ENVOY_BIND", settings.envoy_bind))
        if native == HAPROXY:
            _keep_others_out(settings, stack)
        program = _Program(
            settings, policies, authorities, sockets, native, is_traced=is_traced
        )
        if settings.workers == 1:
            program.run_worker(None)
            return 0
        return program.supervise()


def _keep_others_out(settings: VerifierSettings, stack: contextlib.ExitStack) -> None:
    """Keep every other process from writing into HAProxy until the stack is closed.

    Raises:
        SettingsError: another one writes into it, or the directory cannot be used.
    """
    directory = Path(settings.haproxy_dir)
    try:
        stack.enter_context(sole_writer(directory))
    except SecondWriterError as error:
        raise SettingsError(f"VERIFIER_HAPROXY_DIR: {error}") from None
    except OSError as error:
        raise SettingsError(
            f"VERIFIER_HAPROXY_DIR: cannot write into {directory}: {error.strerror}; "
            "its parent must exist, and the directory be ours"
        ) from None


class _Sockets(NamedTuple):
    """What the workers listen on.

    Attributes:
        main: the public port's.
        admin: the operators' port's.
        grpc_target: the address at which each worker opens a socket of its own for
            gRPC; empty for none.
    """

    main: socket.socket
    admin: socket.socket
    grpc_target: str


class _Program:
    """Starts the workers of this verifier."""

    def __init__(
        self,
        settings: VerifierSettings,
        policies: PolicyBook,
        authorities: Authorities,
        sockets: _Sockets,
        native: str,
        *,
        is_traced: bool,
    ) -> None:
        self._settings = settings
        self._native = native
        self._is_traced = is_traced
        #: the content that workers start with; renewed on HUP, and when a worker has
        #: new policies. A worker that starts while a file cannot be used has the last
        #: good one.
        self._files = Files(settings, policies, authorities)
        self._sockets = sockets
        workers, slots = settings.workers, slots_for(settings.workers)
        # Created before any worker is forked, so that all workers share them.
        self._board = WorkerBoard(workers, spare=slots - workers)
        self._decisions = DecisionBoard(slots if workers > 1 else 1)
        self._metrics = MetricsBoard(slots, METRICS_SLOT_BYTES) if workers > 1 else None

    def supervise(self) -> int:
        """Supervise the workers until a stop; return the exit status."""
        # Workers share the memory of existing objects as long as no garbage collection
        # writes to it.
        collector.exempt_what_is_there()
        settings = self._settings
        supervisor = Supervisor(
            self.run_worker,
            settings.workers,
            reload=self._reload,
            listeners=(self._sockets.main, self._sockets.admin),
            on_end=self._board.clear,
            # A worker that uses all of the grace must still have time to end its lease.
            patience=Patience(
                stop=longest_drain(settings.drain_delay, settings.drain_idle)
                + GRACE
                + math.ceil(GOODBYE_TIMEOUT)
                + 5
            ),
        )
        return supervisor.run()

    def _reload(self) -> None:
        self._files.renew()

    def run_worker(self, slot: Slot | None) -> None:
        """Serve in this process until it has drained, and send its last spans.

        Raises:
            SystemExit: the worker could not start.
        """
        with running_spans("verifier", is_wanted=self._is_traced) as spans:
            self._serve(slot, spans)

    def _serve(self, slot: Slot | None, spans: Spans | None) -> None:
        lifecycle = Lifecycle()
        index = slot.index if slot else 0
        context = WorkerContext(
            self._sockets.admin,
            self._board,
            index,
            lifecycle,
            self._decisions,
            self._metrics,
            grpc_target=self._sockets.grpc_target,
            spans=spans,
            native=self._native,
        )
        if slot is not None:
            context = context._replace(on_policies=partial(slot.link.report, RENEW))
        files = self._files
        runtime = Runtime(files.settings, files.policies, context, files.authorities)
        server = WorkerServer(
            uvicorn.Config(LifespanApp(runtime.lifespan), **SERVER),
            self._sockets.main,
            lifecycle,
            Duties(
                runtime.reload,
                on_drain=runtime.drain,
                drain_delay=self._settings.drain_delay,
                drain_idle=self._settings.drain_idle,
            ),
            slot,
        )
        run_server(server)
