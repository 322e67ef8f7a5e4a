"""Runs the demo's programs: starts them in order, and stops them in reverse."""

from __future__ import annotations

import asyncio
import time
from asyncio.subprocess import DEVNULL, STDOUT, Process
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from deploy.demo.addresses import HOST

_INTERVAL = 0.05
_STOP_WITHIN = 15.0
_TAIL_LINES = 25


class ChildError(Exception):
    """A program ended or was not ready in time; the message has the end of its log."""


@dataclass(frozen=True, slots=True)
class Child:
    """A running program and its log file."""

    name: str
    process: Process
    log: Path

    def tail(self) -> str:
        """Return the last lines of its log."""
        lines = self.log.read_text(errors="replace").splitlines()
        return "\n".join(f"    {line}" for line in lines[-_TAIL_LINES:])


class Supervisor:
    """Starts programs, reports when one ends, and stops them in reverse order."""

    def __init__(self, log_dir: Path) -> None:
        log_dir.mkdir(parents=True, exist_ok=True)
        self._log_dir = log_dir
        self._children: list[Child] = []

    async def start(
        self,
        name: str,
        command: Sequence[str],
        *,
        env: Mapping[str, str],
        cwd: Path,
        is_ready: Callable[[], Awaitable[bool]],
        deadline: float = 30.0,
    ) -> None:
        """Start one program and return when it is ready.

        Args:
            name: for messages; its log is `<name>.log`.
            command: program and arguments.
            env: its whole environment.
            cwd: its working directory.
            is_ready: called until it returns true.
            deadline: seconds to wait for that.

        Raises:
            ChildError: it ended or was not ready in time.
        """
        child = await self._launch(name, command, env, cwd)
        end = time.monotonic() + deadline
        while not await is_ready():
            if child.process.returncode is not None:
                raise _ended(child)
            if time.monotonic() > end:
                raise ChildError(
                    f"{name} was not ready within {deadline:.0f} s; its log "
                    f"({child.log}) ends:\n{child.tail()}"
                )
            await asyncio.sleep(_INTERVAL)

    async def _launch(
        self, name: str, command: Sequence[str], env: Mapping[str, str], cwd: Path
    ) -> Child:
        path = self._log_dir / f"{name}.log"
        with path.open("wb") as log:
            process = await asyncio.create_subprocess_exec(
                *command,
                stdin=DEVNULL,
                stdout=log,
                stderr=STDOUT,
                env=dict(env),
                cwd=cwd,
                # Not in the terminal's group: Ctrl-C must reach only the supervisor,
                # which then stops the programs in order.
                start_new_session=True,
            )
        child = Child(name, process, path)
        self._children.append(child)
        return child

    async def wait_for_an_end(self) -> None:
        """Wait until any of the programs ends.

        Raises:
            ChildError: always; the message names the program.
        """
        waits = {asyncio.create_task(c.process.wait()): c for c in self._children}
        try:
            done, _ = await asyncio.wait(waits, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for wait in waits:
                wait.cancel()
        raise _ended(waits[done.pop()])

    async def stop_all(self) -> None:
        """Stop all programs, last started first; kill those that do not stop."""
        while self._children:
            process = self._children.pop().process
            if process.returncode is not None:
                continue
            process.terminate()
            try:
                await asyncio.wait_for(process.wait(), _STOP_WITHIN)
            except TimeoutError:
                process.kill()
                await process.wait()


def _ended(child: Child) -> ChildError:
    return ChildError(
        f"{child.name} ended with code {child.process.returncode}; its log "
        f"({child.log}) ends:\n{child.tail()}"
    )


async def http_status(port: int, path: str) -> int:
    """Return the status of a GET to a loopback port; 0 without an answer."""
    try:
        reader, writer = await asyncio.open_connection(HOST, port)
    except OSError:
        return 0
    try:
        request = f"GET {path} HTTP/1.1\r\nHost: {HOST}\r\nConnection: close\r\n\r\n"
        writer.write(request.encode("ascii"))
        line = await asyncio.wait_for(reader.readline(), 2.0)
        return int(line.split()[1]) if line.startswith(b"HTTP/1.") else 0
    except (OSError, TimeoutError):
        return 0
    finally:
        writer.close()
