"""Serves the verifier: one process, or workers under a supervisor.

WebSocket support is off: with it uvicorn refuses the `Upgrade` that Caddy passes on, and
every WebSocket behind the gate with it (R41).
"""

from __future__ import annotations

import contextlib
import math
import socket
from typing import Any, Final

import uvicorn

from shared import collector, log
from shared.listening import listening
from shared.outgoing.authorities import Authorities
from shared.serving.server import Duties, Lifecycle, WorkerServer, run_server
from shared.serving.supervisor import Patience, Slot, Supervisor, slots_for
from shared.worker_metrics import MetricsBoard
from verifier.check.policy import PolicyBook
from verifier.operators.worker_board import WorkerBoard
from verifier.reloading.files import Files
from verifier.runtime import Place, Runtime
from verifier.settings import VerifierSettings
from verifier.sync.goodbye import GOODBYE_TIMEOUT
from verifier.wire.budgets import RECEIVE_BUFFER
from verifier.wire.hosting import Life, gate_protocol

#: Longer than any gateway keeps an idle connection (nginx 60 s), seconds.
KEEP_ALIVE: Final = 75
#: Seconds that open requests get to end at a stop.
GRACE: Final = 10
#: Room for one worker's metrics, which take some 10,000 bytes.
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
    settings: VerifierSettings, policies: PolicyBook, authorities: Authorities
) -> int:
    """Serve until a stop; return the exit status.

    Args:
        settings: the verifier's.
        policies: every policy by name.
        authorities: read before any worker is there, so that one that starts while the
            file is bad goes on with the last good ones.

    Raises:
        SettingsError: when an address cannot be listened on.
        SystemExit: when the only process could not start.
    """
    log.configure("verifier", settings.log_level)
    with contextlib.ExitStack() as stack:
        admin = stack.enter_context(
            listening("VERIFIER_ADMIN_BIND", settings.admin_bind)
        )
        main = stack.enter_context(listening("VERIFIER_BIND", settings.bind))
        # Its connections inherit this.
        main.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, RECEIVE_BUFFER)
        program = _Program(settings, policies, authorities, main, admin)
        if settings.workers == 1:
            program.run_worker(None)
            return 0
        return program.supervise()


class _Program:
    """What every worker of this verifier is made from."""

    def __init__(
        self,
        settings: VerifierSettings,
        policies: PolicyBook,
        authorities: Authorities,
        main: socket.socket,
        admin: socket.socket,
    ) -> None:
        self._settings = settings
        #: what workers start with; renewed on HUP, so that one that starts while a file
        #: is bad has the last good one
        self._files = Files(settings, policies, authorities)
        self._main = main
        self._admin = admin
        workers, slots = settings.workers, slots_for(settings.workers)
        # Before any worker is forked, so that all have the same ones.
        self._board = WorkerBoard(workers, spare=slots - workers)
        self._metrics = MetricsBoard(slots, METRICS_SLOT_BYTES) if workers > 1 else None

    def supervise(self) -> int:
        """Keep the workers until a stop; return the exit status."""
        # What is there already is shared with the workers, as long as no collection
        # writes to it.
        collector.exempt_what_is_there()
        supervisor = Supervisor(
            self.run_worker,
            self._settings.workers,
            reload=self._reload,
            listeners=(self._main, self._admin),
            on_end=self._board.clear,
            # A worker that needs all of it still ends its lease afterwards.
            patience=Patience(
                stop=self._settings.drain_delay + GRACE + math.ceil(GOODBYE_TIMEOUT) + 5
            ),
        )
        return supervisor.run()

    def _reload(self) -> None:
        self._files.renew()

    def run_worker(self, slot: Slot | None) -> None:
        """Serve in this process until it has drained.

        Raises:
            SystemExit: it could not start.
        """
        lifecycle = Lifecycle()
        index = slot.index if slot else 0
        place = Place(self._admin, self._board, index, lifecycle, self._metrics)
        files = self._files
        runtime = Runtime(files.settings, files.policies, place, files.authorities)
        server = WorkerServer(
            uvicorn.Config(Life(runtime.lifespan), **SERVER),
            self._main,
            lifecycle,
            Duties(runtime.reload, drain_delay=self._settings.drain_delay),
            slot,
        )
        run_server(server)
