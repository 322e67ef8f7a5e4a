"""The issuer's commands, each in a process of its own, without a second of imports.

One process imports the issuer and forks for each command. The new process gets the
environment, working directory and standard streams of that command, and then runs
`issuer` as `python -m issuer` does. What is about the start itself (imports, signals,
serving) starts `python -m issuer`.
"""

from __future__ import annotations

import gc
import importlib
import json
import os
import pkgutil
import runpy
import socket
import subprocess
import sys
import tempfile
import threading
from collections.abc import Mapping
from pathlib import Path

from sqlalchemy.orm import configure_mappers

ROOT = Path(__file__).resolve().parents[2]
#: Where a command finds standard input, output and errors; in this order.
_STREAMS = ("in", "out", "err")


class IssuerCommands:
    """Runs commands one after another; `close()` ends the process that forks."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        ours, theirs = socket.socketpair()
        with theirs:
            self._forking = subprocess.Popen(
                [sys.executable, "-m", __name__, str(theirs.fileno())],
                cwd=ROOT,
                pass_fds=[theirs.fileno()],
                stdin=subprocess.DEVNULL,
            )
        self._lines = ours.makefile("rw")
        ours.close()

    def run(
        self, *arguments: str, env: Mapping[str, str], cwd: Path, given: str = ""
    ) -> subprocess.CompletedProcess[str]:
        """Run `python -m issuer ARGUMENTS` to its end, whatever its exit status is.

        Args:
            arguments: a command and its options; not `serve`.
            env: its whole environment.
            cwd: its working directory.
            given: its standard input.
        """
        with (
            tempfile.TemporaryDirectory(prefix="gatehouse-command-") as name,
            self._lock,
        ):
            folder = Path(name)
            (folder / "in").write_text(given)
            request = [arguments, dict(env), str(cwd), name]
            self._lines.write(json.dumps(request) + "\n")
            self._lines.flush()
            answer = self._lines.readline()
            assert answer, "the process that forks has ended; its errors are above"
            return subprocess.CompletedProcess(
                arguments,
                int(answer),
                (folder / "out").read_text(),
                (folder / "err").read_text(),
            )

    def close(self) -> None:
        """End the process that forks, and wait for it."""
        self._lines.close()
        assert self._forking.wait() == 0


def _serve(control: int) -> None:
    """Fork for each request; return in the forking process when there are no more."""
    _import_issuer()
    tasks = os.listdir("/proc/self/task")
    assert len(tasks) == 1, "a fork copies one thread only"
    with socket.socket(fileno=control) as connection:
        lines = connection.makefile("rw")
    for line in lines:
        pid = os.fork()
        if pid == 0:
            lines.close()
            _become(*json.loads(line))
            return
        _, status = os.waitpid(pid, 0)
        lines.write(f"{os.waitstatus_to_exitcode(status)}\n")
        lines.flush()


def _import_issuer() -> None:
    import issuer.app
    import issuer.commands
    import issuer.migrations.upgrading

    folders = issuer.commands.__path__
    for module in pkgutil.walk_packages(folders, "issuer.commands."):
        importlib.import_module(module.name)
    configure_mappers()
    # What is frozen is not walked at the end of each process, and so not copied.
    gc.collect()
    gc.freeze()


def _become(
    arguments: list[str], env: dict[str, str], directory: str, streams: str
) -> None:
    """Be the command, in a process that was just forked; ends with SystemExit."""
    for number, name in enumerate(_STREAMS):
        flags = os.O_RDONLY if number == 0 else os.O_WRONLY | os.O_CREAT | os.O_APPEND
        opened = os.open(Path(streams, name), flags, 0o600)
        os.dup2(opened, number)
        os.close(opened)
    os.environ.clear()
    os.environ.update(env)
    os.chdir(directory)
    sys.argv[1:] = arguments
    runpy.run_module("issuer", run_name="__main__", alter_sys=True)


if __name__ == "__main__":
    _serve(int(sys.argv[1]))
