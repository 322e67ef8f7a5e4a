"""Serves the verifier: uvicorn alone for one worker, gunicorn for several.

WebSocket support is off: with it uvicorn refuses the `Upgrade` that Caddy passes on, and
every WebSocket behind the gate with it (R41).
"""

from __future__ import annotations

import contextlib
import logging
import math
import os
import signal
import socket
from collections.abc import Iterator
from typing import Any, Final

import uvicorn
from gunicorn.app.base import BaseApplication
from gunicorn.arbiter import Arbiter
from gunicorn.glogging import Logger as GunicornLogger
from uvicorn_worker import UvicornWorker

from shared import log
from shared.listening import listening
from shared.outgoing.authorities import Authorities
from shared.worker_metrics import MetricsBoard
from verifier.goodbye import GOODBYE_TIMEOUT
from verifier.policy import PolicyBook
from verifier.runtime import Place, Runtime
from verifier.settings import VerifierSettings
from verifier.wire.budgets import RECEIVE_BUFFER
from verifier.wire.hosting import Life, gate_protocol
from verifier.worker_board import WorkerBoard

#: Longer than any gateway keeps an idle connection (nginx 60 s), seconds.
KEEP_ALIVE: Final = 75
#: Seconds that open requests get to end at a stop.
GRACE: Final = 10
#: Room for one worker's metrics, which take some 10,000 bytes.
METRICS_SLOT_BYTES: Final = 65_536

_SERVER: Final[dict[str, Any]] = {
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
) -> None:
    """Serve until told to stop.

    Args:
        settings: the verifier's.
        policies: every policy by name.
        authorities: read before any worker is there, so that one that starts while the
            file is bad goes on with the last good ones.

    Raises:
        SettingsError: when an address cannot be listened on.
    """
    log.configure("verifier", settings.log_level)
    with contextlib.ExitStack() as stack:
        admin = stack.enter_context(
            listening("VERIFIER_ADMIN_BIND", settings.admin_bind)
        )
        main = stack.enter_context(listening("VERIFIER_BIND", settings.bind))
        # Its connections inherit this.
        main.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, RECEIVE_BUFFER)
        if settings.workers == 1:
            board = WorkerBoard(1)
            place = Place(admin, board, board.assign(0))
            runtime = Runtime(settings, policies, place, authorities)
            app = Life(runtime.lifespan)
            VerifierServer(uvicorn.Config(app, **_SERVER)).run(sockets=[main])
        else:
            VerifierArbiter(settings, policies, authorities, main, admin).run()


class VerifierServer(uvicorn.Server):
    """uvicorn's server, for which a stop that was asked for is no failure."""

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Stop on SIGINT and SIGTERM; uvicorn's own would raise them once more."""
        numbers = (signal.SIGINT, signal.SIGTERM)
        handlers = {n: signal.signal(n, self.handle_exit) for n in numbers}
        try:
            yield
        finally:
            for number, handler in handlers.items():
                signal.signal(number, handler)


class VerifierWorker(UvicornWorker):
    """One gunicorn worker, with the settings of the single server."""

    CONFIG_KWARGS: dict[str, Any] = _SERVER

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        # The base class cuts this one off from the handler all lines go through.
        logging.getLogger("uvicorn.error").propagate = True


class PlainLogger(GunicornLogger):
    """gunicorn's logger without handlers of its own: lines go through `shared.log`."""

    def setup(self, cfg: Any) -> None:
        """Leave the set-up of logs as it is."""
        self.cfg = cfg
        self.error_log.propagate = True


class VerifierArbiter(BaseApplication):
    """gunicorn's master over several verifier workers."""

    def __init__(
        self,
        settings: VerifierSettings,
        policies: PolicyBook,
        authorities: Authorities,
        main: socket.socket,
        admin: socket.socket,
    ) -> None:
        self._settings = settings
        self._policies = policies
        self._authorities = authorities
        # gunicorn closes what it is given, and with it the port: a copy of ours would
        # take connections that no worker answers. At a reload it is given the same.
        self._bind = f"fd://{main.detach()}"
        self._admin = admin
        # Before any worker is forked, so that all have the same one. At a reload the
        # new ones stand beside the old.
        spare = settings.workers + 64
        self._board = WorkerBoard(settings.workers, spare)
        self._metrics = MetricsBoard(settings.workers + spare, METRICS_SLOT_BYTES)
        self._slot = 0
        super().__init__()

    def load_config(self) -> None:
        """Hand our settings to gunicorn; its command line and files play no part."""
        options = {
            "bind": [self._bind],
            "workers": self._settings.workers,
            "worker_class": VerifierWorker,
            # A worker that needs all of it still ends its lease afterwards.
            "graceful_timeout": GRACE + math.ceil(GOODBYE_TIMEOUT) + 1,
            "keepalive": KEEP_ALIVE,
            "control_socket_disable": True,
            "logger_class": PlainLogger,
            "pre_fork": self._before_fork,
            "child_exit": self._after_exit,
        }
        for name, value in options.items():
            self.cfg.set(name, value)

    def load(self) -> Life:
        """Build one worker's application, in the worker."""
        place = Place(self._admin, self._board, self._slot, os.getppid(), self._metrics)
        runtime = Runtime(self._settings, self._policies, place, self._authorities)
        return Life(runtime.lifespan)

    def _before_fork(self, _arbiter: Arbiter, worker: Any) -> None:
        # The worker to be is forked next, and takes this with it.
        self._slot = self._board.assign(worker.age)

    def _after_exit(self, _arbiter: Arbiter, worker: Any) -> None:
        self._board.release(worker.age)
