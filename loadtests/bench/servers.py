"""Starts servers on one core of loopback, and stops every one of them again."""

from __future__ import annotations

import http.client
import random
import socket
import subprocess
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

_INTERVAL = 0.05


class BenchError(Exception):
    """The bench cannot go on; the message is for the terminal."""


@dataclass(frozen=True, slots=True)
class Server:
    """One that runs.

    Attributes:
        port: where it answers; 0 if that is a unix socket.
        pids: the roots of the process trees that work for a request.
        socket: the path of its unix socket; None if it answers at a port.
    """

    port: int
    pids: tuple[int, ...]
    socket: Path | None = None


class Servers:
    """All servers of one run; as a context manager it leaves none behind.

    Args:
        core: the processor they share.
        folder: for their configurations and logs.
    """

    def __init__(self, core: int, folder: Path) -> None:
        self._core = core
        self.folder = folder
        self._started: list[subprocess.Popen[bytes]] = []
        self._ports: set[int] = set()

    def __enter__(self) -> Servers:
        return self

    def __exit__(self, *_: object) -> None:
        for process in reversed(self._started):
            process.terminate()
        for process in reversed(self._started):
            try:
                process.wait(10)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()

    def free_port(self) -> int:
        """Return a free loopback port, below those of outgoing connections."""
        while True:
            port = random.randrange(12_000, 32_000)
            if port not in self._ports and _is_free(port):
                self._ports.add(port)
                return port

    def start(
        self,
        name: str,
        command: Sequence[str],
        is_ready: Callable[[], bool],
        *,
        env: Mapping[str, str] | None = None,
        deadline: float = 20.0,
    ) -> int:
        """Start a server on the servers' core; return its process id once it answers.

        Raises:
            BenchError: when it ends or does not answer in time, with its log's end.
        """
        log = self.folder / f"{name}.log"
        with log.open("wb") as output:
            process = subprocess.Popen(
                # Should the bench be killed outright, the kernel stops the server.
                [*_pinned(self._core), *command],
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                env=env,
                cwd=self.folder,
                # Ctrl-C is for the bench alone, which then stops them all.
                start_new_session=True,
            )
        self._started.append(process)
        end = time.monotonic() + deadline
        while not is_ready():
            if process.poll() is not None or time.monotonic() > end:
                tail = "\n".join(log.read_text(errors="replace").splitlines()[-15:])
                raise BenchError(f"{name} does not run; its log ends:\n{tail}")
            time.sleep(_INTERVAL)
        return process.pid


def status(port: int, target: str, headers: Mapping[str, str] | None = None) -> int:
    """Return the status a loopback port answers to GET; 0 when it does not answer."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=5)
    try:
        connection.request("GET", target, headers=dict(headers or {}))
        return connection.getresponse().status
    except (OSError, http.client.HTTPException):
        return 0
    finally:
        connection.close()


def _is_free(port: int) -> bool:
    with socket.socket() as probe:
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return False
    return True


def _pinned(core: int) -> list[str]:
    return ["taskset", "-c", str(core), "setpriv", "--pdeathsig", "TERM"]
