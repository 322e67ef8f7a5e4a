"""An Envoy and a HAProxy beside `native`, each to be broken."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Final, NamedTuple, Protocol

from loadtests.bench.setups import find
from loadtests.bench_native.configs import native_config
from loadtests.bench_native.haproxy_configs import native_haproxy
from loadtests.support.processes import (
    Process,
    ProcessFactory,
    descendants,
    free_port,
    is_alive,
    is_listening,
    wait_until,
)

#: Workers of Envoy, and threads of HAProxy.
WORKERS: Final = 4


class Link(NamedTuple):
    """The way between a gateway and `native`.

    Attributes:
        path: by which one finds the other; a link to `socket` at first.
        socket: where the other listens.
    """

    path: Path
    socket: Path


class Gateway(Protocol):
    """A gateway beside `native`.

    Attributes:
        name: of the program.
        kind: the word of `native`.
        port: where it listens.
        link: to `native`.
        settings: of `native`, by name.
        process: that was started last.
    """

    name: str
    kind: str
    port: int
    link: Link
    settings: Mapping[str, str]
    process: Process | None

    def start(self) -> Process:
        """Start it; return once it listens, perhaps without anything of ours."""

    def reload(self) -> None:
        """Have a new process take over from the one that serves."""

    def reconnect(self) -> None:
        """Have the connections over the link begin anew."""

    def ways_to_kill(self) -> Mapping[str, Callable[[], None]]:
        """Return what kills all of it, by name."""

    def stopped(self) -> AbstractContextManager[None]:
        """Return a context in which it keeps its connections and does nothing."""


#: Makes a gateway in a folder, and starts nothing.
MakeGateway = Callable[[ProcessFactory, Path], Gateway]


class Envoy:
    """Envoy, which asks `native` for its filters.

    Args:
        factory: starts it.
        folder: for configuration and sockets.
        workers: threads of it.
    """

    name = "Envoy"
    kind = "envoy"

    def __init__(
        self, factory: ProcessFactory, folder: Path, workers: int = WORKERS
    ) -> None:
        self.port = free_port()
        self.link = Link(folder / "envoy-xds.sock", folder / "native.sock")
        self.settings = {
            "VERIFIER_ENVOY_BIND": f"unix:{self.link.socket}",
            "VERIFIER_ENVOY_ADMIN": f"unix:{folder}/envoy-admin.sock",
        }
        self.process: Process | None = None
        self._factory = factory
        self._folder = folder
        self._workers = workers
        self._epoch = 0
        native_config(folder, self.port)

    def start(self) -> Process:
        """See `Gateway`."""
        self._epoch = 0
        (self._folder / "base-id").unlink(missing_ok=True)
        base = ("--use-dynamic-base-id", "--base-id-path", self._folder / "base-id")
        return self._run(*base)

    def reload(self) -> None:
        """Start the next Envoy, which takes over from this one (hot restart)."""
        self._epoch += 1
        base = (self._folder / "base-id").read_text()
        self._run(
            *("--base-id", base, "--restart-epoch", str(self._epoch)),
            *("--drain-time-s", "1", "--parent-shutdown-time-s", "2"),
            # What the counters prove (docs/native.md).
            "--skip-hot-restart-parent-stats",
        )

    def reconnect(self) -> None:
        """It keeps its one stream: it is started anew."""
        self._kill()
        self.start()

    def ways_to_kill(self) -> Mapping[str, Callable[[], None]]:
        """See `Gateway`."""
        return {"Envoy killed": self._kill}

    def stopped(self) -> AbstractContextManager[None]:
        """See `Gateway`."""
        return _stopped(_running(self.process).pid)

    def _kill(self) -> None:
        _running(self.process).kill()

    def _run(self, *options: str | Path) -> Process:
        program = Path(sys.executable).parent / "envoy"
        command = (program, "-c", self._folder / "envoy.json", "-l", "error")
        self.process = self._factory.start(
            "envoy",
            (*command, "--concurrency", str(self._workers), *options),
            ready=lambda: is_listening(self.port),
        )
        return self.process


class Haproxy:
    """HAProxy, into which `native` writes; that is started first.

    Args:
        factory: starts it.
        folder: for configuration and sockets.
    """

    name = "HAProxy"
    kind = "haproxy"

    def __init__(self, factory: ProcessFactory, folder: Path) -> None:
        self.port = free_port()
        self.link = Link(folder / "native.sock", folder / "master.sock")
        self.settings = {
            "VERIFIER_HAPROXY_MASTER": f"unix:{self.link.path}",
            "VERIFIER_HAPROXY_DIR": f"{folder}/haproxy",
        }
        self.process: Process | None = None
        self._factory = factory
        self._files = native_haproxy(folder, self.port, threads=WORKERS)

    def start(self) -> Process:
        """See `Gateway`."""
        files = [part for file in self._files for part in ("-f", file)]
        socket = f"{self.link.socket},mode,600"
        self.process = self._factory.start(
            "haproxy",
            (find("haproxy") or "haproxy", "-W", "-S", socket, *files),
            ready=lambda: is_listening(self.port),
        )
        return self.process

    def reload(self) -> None:
        """See `Gateway`."""
        before = self._worker()
        _running(self.process).send_signal(signal.SIGUSR2)
        wait_until(
            lambda: self._worker() not in {0, before}, what="HAProxy has a new worker"
        )

    def reconnect(self) -> None:
        """The master ends its connections when it is reloaded."""
        self.reload()

    def ways_to_kill(self) -> Mapping[str, Callable[[], None]]:
        """See `Gateway`. With its worker the master ends, and with it the worker."""
        return {
            "HAProxy's worker killed": lambda: self._kill(self._worker()),
            "HAProxy's master killed": lambda: self._kill(_running(self.process).pid),
        }

    def stopped(self) -> AbstractContextManager[None]:
        """See `Gateway`."""
        return _stopped(self._worker())

    def _kill(self, pid: int) -> None:
        family = _running(self.process).family()
        os.kill(pid, signal.SIGKILL)
        wait_until(lambda: not any(map(is_alive, family)), what="HAProxy has ended")

    def _worker(self) -> int:
        """Return the process id of the newest worker; 0 when there is none."""
        family = descendants(_running(self.process).pid)
        return max(family, key=_started, default=0)


def _running(process: Process | None) -> Process:
    assert process is not None
    return process


def _started(pid: int) -> int:
    """Return when a process started, in the kernel's ticks (proc(5)); 0: it ended."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return 0
    return int(stat.rpartition(")")[2].split()[19])


@contextmanager
def _stopped(pid: int) -> Iterator[None]:
    """Within, the process keeps its connections and does nothing."""
    os.kill(pid, signal.SIGSTOP)
    try:
        yield
    finally:
        os.kill(pid, signal.SIGCONT)
