"""Several worker processes under gunicorn, for PostgreSQL.

gunicorn runs inside this program and takes no configuration of its own: the settings
are the issuer's.
"""

from __future__ import annotations

import logging
import socket
import sys
from typing import TYPE_CHECKING, Any, Final

from fastapi import FastAPI
from gunicorn.app.base import BaseApplication
from gunicorn.arbiter import Arbiter
from gunicorn.glogging import Logger
from uvicorn_worker import UvicornWorker

from issuer.serve import (
    SERVER_OPTIONS,
    PublicServer,
    announce,
    build_port,
    listening_for,
)
from issuer.settings import IssuerSettings
from shared.worker_metrics import MetricsBoard

if TYPE_CHECKING:
    from issuer.composition import Issuer

#: Seconds without a sign of life after which the master kills a worker.
_TIMEOUT: Final = 30
#: Seconds a worker has to finish; above uvicorn's own, which answers first.
_GRACEFUL_TIMEOUT: Final = 15
#: Workers that may be there for a while beside as many old ones, as after a reload.
_SPARE_SLOTS: Final = 16
#: Room for one worker's metrics. With every route asked they take some 200,000 bytes.
_SLOT_BYTES: Final = 1_048_576


def run_workers(settings: IssuerSettings) -> None:
    """Serve with `settings.workers` processes until the master is told to stop.

    Raises:
        SystemExit: at the end, with the master's exit code.
        SettingsError: when it cannot listen.
    """
    with listening_for(settings) as sockets:
        _WorkersApplication(settings, *sockets).run()


class IssuerWorker(UvicornWorker):  # type: ignore[misc]  # no types there
    """A worker: uvicorn with our options, which ends when its master has gone."""

    CONFIG_KWARGS = SERVER_OPTIONS

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        # The base class cuts these off from the one handler all lines go through.
        for name in ("uvicorn.error", "uvicorn.access"):
            logging.getLogger(name).propagate = True

    async def _serve(self) -> None:
        self.config.app = self.wsgi
        self.config.http = build_port(self.app.settings)
        issuer: Issuer = self.app.issuer
        server = PublicServer(
            self.config,
            release_waiters=issuer.following.release_waiters,
            parent_pid=self.ppid,
        )
        self._install_sigquit_handler()
        await server.serve(sockets=self.sockets)
        if not server.started:
            sys.exit(Arbiter.WORKER_BOOT_ERROR)


class _PlainLogger(Logger):  # type: ignore[misc]  # no types there
    """gunicorn's lines go through the handler that all others go through."""

    def setup(self, cfg: Any) -> None:
        """Set nothing up but the way to the root logger."""
        self.cfg = cfg
        self.error_log.propagate = True
        self._access_log_enabled = False


class _WorkersApplication(BaseApplication):  # type: ignore[misc]  # no types there
    """gunicorn's application; each worker composes an issuer of its own."""

    issuer: Issuer

    def __init__(
        self,
        settings: IssuerSettings,
        public_socket: socket.socket,
        operators_socket: socket.socket,
    ) -> None:
        self.settings = settings
        # Made before the fork, so that all workers share them. gunicorn gets a descriptor
        # and no address: for a unix socket it would call chown, which the systemd unit
        # forbids. It closes what it is given, and with it the port: a copy of ours would
        # take connections that no worker answers. At a reload it is given the same.
        self._bind = f"fd://{public_socket.detach()}"
        self._operators_socket = operators_socket
        # Before any worker is forked, so that all have the same one.
        slots = 2 * settings.workers + _SPARE_SLOTS
        self._board = MetricsBoard(slots, _SLOT_BYTES)
        self._free_slots = list(range(slots))
        self._slot: int | None = None
        super().__init__()

    def load_config(self) -> None:
        """Set every option; neither file nor environment is read."""
        options = {
            "bind": [self._bind],
            "workers": self.settings.workers,
            "worker_class": IssuerWorker,
            "logger_class": _PlainLogger,
            "timeout": _TIMEOUT,
            "graceful_timeout": _GRACEFUL_TIMEOUT,
            "control_socket_disable": True,
            "proc_name": "gatehouse-issuer",
            "when_ready": lambda _arbiter: announce(self.settings),
            "pre_fork": self._before_fork,
            "child_exit": self._after_exit,
        }
        for name, value in options.items():
            self.cfg.set(name, value)

    def load(self) -> FastAPI:
        """Compose an issuer; called in the worker, after the fork."""
        from issuer.app import build_public_app
        from issuer.composition import compose

        slot = None if self._slot is None else self._board.take_over(self._slot)
        self.issuer = compose(self.settings, metrics_slot=slot)
        return build_public_app(self.issuer, self._operators_socket)

    def _before_fork(self, _arbiter: Arbiter, worker: Any) -> None:
        # The worker to be is forked next, and takes this with it. With more workers than
        # slots, one serves without showing its metrics to the others.
        self._slot = self._free_slots.pop(0) if self._free_slots else None
        worker.metrics_slot = self._slot

    def _after_exit(self, _arbiter: Arbiter, worker: Any) -> None:
        if worker.metrics_slot is not None:
            self._free_slots.insert(0, worker.metrics_slot)
