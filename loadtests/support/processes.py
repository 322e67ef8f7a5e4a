"""Real programs in tests and benchmarks: start, wait, read the log, stop by pid.

Only this module sleeps in the tests: everything else waits for a condition with a
deadline by calling `wait_until` or `eventually`.
"""

from __future__ import annotations

import asyncio
import itertools
import os
import random
import socket
import subprocess
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from pathlib import Path

#: Seconds after which a wait is given up. Only what hangs takes that long: how quickly
#: something must happen is no test's pass mark, because other programs run beside it.
PATIENCE = 120.0
_INTERVAL = 0.02
#: No gateway has to close its idle connections before a program stops.
_QUICK_STOPS = {"ISSUER_DRAIN_IDLE": "0", "VERIFIER_DRAIN_IDLE": "0"}
#: Which of the suite's processes this is, when there are several (pytest-xdist).
_WORKER = int(os.environ.get("PYTEST_XDIST_WORKER", "gw0").removeprefix("gw")) % 10
_system_random = random.SystemRandom()
_handed_out: set[int] = set()


class NotInTimeError(AssertionError):
    """A condition did not come true before its deadline."""


def free_port() -> int:
    """Return an unused loopback TCP port, never the same one twice.

    Below the range from which the kernel takes the ports of outgoing connections: a
    program that is started again must find its port free. Each process of the suite
    takes its own out of ten; not by the seeded generator, which is alike in all.
    """
    while True:
        port = _system_random.randrange(12_000 + _WORKER, 32_000, 10)
        if port not in _handed_out and not _is_taken(port):
            _handed_out.add(port)
            return port


def _is_taken(port: int) -> bool:
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as probe:
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return True
    return False


def is_listening(port: int) -> bool:
    """Return whether something accepts connections on this loopback TCP port."""
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as probe:
        probe.settimeout(10.0)
        return probe.connect_ex(("127.0.0.1", port)) == 0


def is_alive(pid: int) -> bool:
    """Return whether this process runs; one that ended and was not reaped does not."""
    try:
        state = _fields(Path(f"/proc/{pid}/stat"))[0]
    except (FileNotFoundError, ProcessLookupError):
        return False
    return state != "Z"


def _fields(stat: Path) -> list[str]:
    """Return the fields behind the name in a `/proc/PID/stat`; it may be any bytes."""
    return stat.read_text(errors="replace").rpartition(")")[2].split()


def descendants(pid: int) -> set[int]:
    """Return the pids of all living children of `pid`, and of their children."""
    children: dict[int, list[int]] = {}
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            parent = int(_fields(stat)[1])
        except (FileNotFoundError, ProcessLookupError):
            continue
        children.setdefault(parent, []).append(int(stat.parent.name))
    found: set[int] = set()
    waiting = [pid]
    while waiting:
        for child in children.get(waiting.pop(), []):
            found.add(child)
            waiting.append(child)
    return found


def wait_until(
    condition: Callable[[], object],
    *,
    deadline: float = PATIENCE,
    what: str = "",
    interval: float = _INTERVAL,
) -> None:
    """Return as soon as `condition()` is true.

    Args:
        condition: asked again and again; a connection error counts as "not yet".
        deadline: seconds after which it is given up.
        what: the awaited condition, in the words of the failure.
        interval: seconds between two questions; more for what takes a minute.

    Raises:
        NotInTimeError: when the deadline passes first.
    """
    end = time.monotonic() + deadline
    while not _holds(condition):
        if time.monotonic() > end:
            raise NotInTimeError(f"not within {deadline} s: {what or condition}")
        time.sleep(interval)


async def eventually(
    condition: Callable[[], Awaitable[object]],
    *,
    deadline: float = PATIENCE,
    what: str = "",
) -> None:
    """Return as soon as `await condition()` is true; as `wait_until`, for coroutines.

    Raises:
        NotInTimeError: when the deadline passes first.
    """
    end = time.monotonic() + deadline
    while not await condition():
        if time.monotonic() > end:
            raise NotInTimeError(f"not within {deadline} s: {what or condition}")
        await asyncio.sleep(_INTERVAL)


def _holds(condition: Callable[[], object]) -> bool:
    try:
        return bool(condition())
    except OSError:
        return False


class Process:
    """One running program; its output goes to `log_path`.

    Attributes:
        name: in failures.
        pid: its process id.
        log_path: the file that receives stdout and stderr.
    """

    def __init__(
        self,
        name: str,
        command: Sequence[str | Path],
        *,
        log_path: Path,
        env: Mapping[str, str] | None = None,
        cwd: Path | None = None,
    ) -> None:
        self.name = name
        self.log_path = log_path
        with log_path.open("ab") as log:
            self._popen = subprocess.Popen(
                [str(part) for part in command],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                env=dict(env) if env is not None else None,
                cwd=cwd,
                start_new_session=True,
            )
        self.pid = self._popen.pid

    @property
    def exit_code(self) -> int | None:
        """The exit code, negative for a signal; None while it runs."""
        return self._popen.poll()

    def log(self) -> str:
        """Return all it has written so far."""
        return self.log_path.read_text(errors="replace")

    def wait_until(
        self,
        condition: Callable[[], object],
        *,
        deadline: float = PATIENCE,
        what: str = "",
    ) -> None:
        """Wait as the function does, and fail at once when the program ends.

        Raises:
            NotInTimeError: with the end of the log.
        """

        def holds_or_ended() -> bool:
            return self.exit_code is not None or bool(_holds(condition))

        try:
            wait_until(holds_or_ended, deadline=deadline, what=what)
        except NotInTimeError as error:
            raise NotInTimeError(f"{self.name}: {error}\n{self._tail()}") from None
        if self.exit_code is not None:
            raise NotInTimeError(
                f"{self.name} ended with {self.exit_code}, awaited: {what}\n"
                f"{self._tail()}"
            )

    def wait_for_exit(self, *, deadline: float = PATIENCE) -> int:
        """Return the exit code once the program has ended.

        Raises:
            NotInTimeError: when it still runs at the deadline.
        """
        try:
            return self._popen.wait(deadline)
        except subprocess.TimeoutExpired:
            raise NotInTimeError(
                f"{self.name} still runs after {deadline} s\n{self._tail()}"
            ) from None

    def send_signal(self, number: int) -> None:
        """Send one signal to this process alone."""
        self._popen.send_signal(number)

    def terminate(self, *, deadline: float = PATIENCE) -> int:
        """Ask it to stop (SIGTERM) and return its exit code; kill -9 past the
        deadline.
        """
        self._popen.terminate()
        try:
            return self._popen.wait(deadline)
        except subprocess.TimeoutExpired:
            return self.kill()

    def family(self) -> set[int]:
        """Return its pid and those of its living descendants."""
        return {self.pid, *descendants(self.pid)}

    def kill(self) -> int:
        """Stop it without warning (SIGKILL), with its children; return its exit
        code.
        """
        orphans = descendants(self.pid)
        self._popen.kill()
        for pid in orphans:
            if is_alive(pid):
                os.kill(pid, 9)
        return self._popen.wait(PATIENCE)

    def _tail(self) -> str:
        return "\n".join(self.log().splitlines()[-30:])


class ProcessFactory:
    """Starts programs and stops all that still run at the end, in reverse order."""

    def __init__(self, log_dir: Path) -> None:
        self._log_dir = log_dir
        self._started: list[Process] = []
        # Each start has a log of its own: an old one must not answer for a new one.
        self._numbers = itertools.count(1)

    def start(
        self,
        name: str,
        command: Sequence[str | Path],
        *,
        env: Mapping[str, str] | None = None,
        cwd: Path | None = None,
        ready: Callable[[], object] | None = None,
        deadline: float = PATIENCE,
    ) -> Process:
        """Start `command` and return it once `ready()` is true.

        Args:
            name: names the program in failures, and its log file.
            command: program and arguments.
            env: the whole environment, but for a drain that does not wait for idle
                connections; the test's own when left out.
            cwd: working directory.
            ready: the condition to wait for; none: return at once.
            deadline: seconds for `ready`.

        Raises:
            NotInTimeError: it ended or was not ready in time; with the end of its log.
        """
        path = self._log_dir / f"{name}-{next(self._numbers)}.log"
        env = {**_QUICK_STOPS, **(os.environ if env is None else env)}
        process = Process(name, command, log_path=path, env=env, cwd=cwd)
        self._started.append(process)
        if ready is not None:
            process.wait_until(ready, deadline=deadline, what="readiness")
        return process

    def stop_all(self) -> None:
        """Terminate everything that still runs, last started first."""
        while self._started:
            process = self._started.pop()
            if process.exit_code is None:
                process.terminate()

    def kill_all(self) -> None:
        """Kill everything that still runs, last started first."""
        while self._started:
            process = self._started.pop()
            if process.exit_code is None:
                process.kill()
