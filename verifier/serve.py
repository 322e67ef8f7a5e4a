"""Serves the verifier: uvicorn alone for one worker, gunicorn for several.

WebSocket support is off: with it uvicorn refuses the `Upgrade` that Caddy passes on, and
every WebSocket behind the gate with it (R41).
"""

from __future__ import annotations

import contextlib
import logging
import os
import signal
import socket
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import uvicorn
from gunicorn.app.base import BaseApplication
from gunicorn.arbiter import Arbiter
from gunicorn.glogging import Logger as GunicornLogger
from gunicorn.util import parse_address
from uvicorn_worker import UvicornWorker

from shared import log, worker_metrics
from shared.outgoing.authorities import Authorities
from shared.settings import SettingsError
from verifier.asgi import VerifierApp
from verifier.policy import PolicyBook
from verifier.protocol import GateProtocol
from verifier.runtime import Place, Runtime
from verifier.settings import VerifierSettings
from verifier.worker_board import WorkerBoard

#: Longer than any gateway keeps an idle connection (nginx 60 s), seconds.
KEEP_ALIVE: Final = 75
#: Seconds that open requests get to end at a stop.
GRACE: Final = 10
_BACKLOG: Final = 2048

_SERVER: Final[dict[str, Any]] = {
    "http": GateProtocol,
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
            _listening("VERIFIER_ADMIN_BIND", settings.admin_bind)
        )
        main = stack.enter_context(_listening("VERIFIER_BIND", settings.bind))
        if settings.workers == 1:
            board = WorkerBoard(1)
            place = Place(admin, board, board.assign(0))
            runtime = Runtime(settings, policies, place, authorities)
            app = VerifierApp(runtime.lifespan)
            VerifierServer(uvicorn.Config(app, **_SERVER)).run(sockets=[main])
        else:
            VerifierArbiter(settings, policies, authorities, main, admin).run()


@contextlib.contextmanager
def _listening(setting: str, bind: str) -> Iterator[socket.socket]:
    """Open a listening socket; a unix socket's file is removed again.

    Raises:
        SettingsError: naming the setting, when the address is not to be had.
    """
    address = parse_address(bind)
    try:
        listener = _open_unix(address) if isinstance(address, str) else _open(address)
    except OSError as error:
        raise SettingsError(f"{setting}: cannot listen on {bind}: {error}") from None
    owner = os.getpid()
    try:
        listener.listen(_BACKLOG)
        yield listener
    finally:
        listener.close()
        # A forked worker leaves through here as well; the file is its parent's.
        if isinstance(address, str) and os.getpid() == owner:
            Path(address).unlink(missing_ok=True)


def _open(address: tuple[str, int]) -> socket.socket:
    family = socket.AF_INET6 if ":" in address[0] else socket.AF_INET
    listener = socket.socket(family, socket.SOCK_STREAM)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    listener.bind(address)
    return listener


def _open_unix(path: str) -> socket.socket:
    """Bind a unix socket for this user and group; a dead one's file makes way."""
    with contextlib.suppress(FileNotFoundError):
        if stat.S_ISSOCK(os.stat(path).st_mode):
            probe = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
            if probe.connect_ex(path) != 0:
                os.unlink(path)
            probe.close()
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    listener.bind(path)
    # A unix peer is trusted (R1): who may connect is decided by the file's mode.
    os.chmod(path, 0o660)
    return listener


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
        self._main = main
        self._admin = admin
        # Before any worker is forked, so that all have the same one. At a reload the
        # new ones stand beside the old.
        self._board = WorkerBoard(settings.workers, spare=settings.workers + 64)
        self._slot = 0
        super().__init__()

    def load_config(self) -> None:
        """Hand our settings to gunicorn; its command line and files play no part."""
        options = {
            # gunicorn closes what it is given; ours is closed by who opened it.
            "bind": [f"fd://{self._main.dup().detach()}"],
            "workers": self._settings.workers,
            "worker_class": VerifierWorker,
            "graceful_timeout": GRACE,
            "keepalive": KEEP_ALIVE,
            "control_socket_disable": True,
            "logger_class": PlainLogger,
            "pre_fork": self._before_fork,
            "child_exit": self._after_exit,
        }
        for name, value in options.items():
            self.cfg.set(name, value)

    def load(self) -> VerifierApp:
        """Build one worker's application, in the worker."""
        place = Place(self._admin, self._board, self._slot, parent_pid=os.getppid())
        runtime = Runtime(self._settings, self._policies, place, self._authorities)
        return VerifierApp(runtime.lifespan)

    def _before_fork(self, _arbiter: Arbiter, worker: Any) -> None:
        # The worker to be is forked next, and takes this with it.
        self._slot = self._board.assign(worker.age)

    def _after_exit(self, _arbiter: Arbiter, worker: Any) -> None:
        """Forget a dead worker but for its counts.

        Unset, the variable must not end the master (R39).
        """
        self._board.release(worker.age)
        directory = os.environ.get(worker_metrics.VARIABLE)
        if directory:
            worker_metrics.fold_dead_worker(Path(directory), worker.pid)
