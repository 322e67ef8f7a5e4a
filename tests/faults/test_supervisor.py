"""Workers under the supervisor: nothing that happens to one takes the others along
(R48).

Real processes; `tests/support/supervised.py` is the program.
"""

from __future__ import annotations

import http.client
import itertools
import json
import os
import signal
import socket
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from datetime import datetime
from pathlib import Path

import pytest

from tests.support.processes import (
    Process,
    ProcessFactory,
    descendants,
    is_alive,
    wait_until,
)
from tests.support.survival import Load, Request

pytestmark = pytest.mark.processes
ROOT = Path(__file__).resolve().parents[2]
PROGRAM = "tests.support.supervised"


class Running:
    """The program, and questions to it."""

    def __init__(
        self,
        factory: ProcessFactory,
        folder: Path,
        workers: int,
        *,
        is_held: bool = False,
    ) -> None:
        self.folder = folder
        self._opened: list[http.client.HTTPConnection] = []
        self.process: Process = factory.start(
            "supervised",
            [sys.executable, "-m", PROGRAM, str(workers), str(folder)],
            env={"PATH": os.environ["PATH"], "PYTHONPATH": str(ROOT)},
            cwd=folder,
            ready=lambda: (folder / "port").exists() and (is_held or self.ask()),
        )
        if workers > 1 and not is_held:
            wait_until(lambda: self.log("worker.serving") == workers)

    @property
    def pids(self) -> set[int]:
        return {pid for pid in descendants(self.process.pid) if is_alive(pid)}

    def log(self, event: str) -> int:
        return self.process.log().count(f'"{event}"')

    def lines(self, event: str) -> list[str]:
        log = self.process.log().splitlines()
        return [line for line in log if f'"{event}"' in line]

    def connect(self) -> http.client.HTTPConnection:
        port = int((self.folder / "port").read_text())
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
        self._opened.append(connection)
        return connection

    def close(self) -> None:
        for connection in self._opened:
            connection.close()

    def ask(self, path: str = "/") -> str:
        connection = self.connect()
        try:
            connection.request("GET", path)
            return connection.getresponse().read().decode()
        finally:
            connection.close()


def load(running: Running) -> Load:
    """Threads that send requests on kept connections and record failures."""
    port = int((running.folder / "port").read_text())
    return Load(port, lambda: Request("GET", "/", {}, b"", 200))


Start = Callable[[int], Running]


@pytest.fixture
def factory(tmp_path: Path) -> Iterator[ProcessFactory]:
    made = ProcessFactory(tmp_path)
    yield made
    made.stop_all()


@pytest.fixture
def start(factory: ProcessFactory, tmp_path: Path) -> Iterator[Start]:
    started: list[Running] = []

    def start(workers: int) -> Running:
        started.append(Running(factory, tmp_path, workers))
        return started[-1]

    yield start
    for running in started:
        running.close()


def test_workers_are_replaced_one_by_one_without_a_failure(
    start: Start, tmp_path: Path
) -> None:
    running = start(2)
    with load(running) as asked:
        for _ in range(3):
            before = running.pids
            done = running.log("supervisor.replaced")
            os.kill(running.process.pid, signal.SIGUSR2)
            wait_until(lambda done=done: running.log("supervisor.replaced") > done)
            assert running.pids.isdisjoint(before)
            assert len(running.pids) == 2
    assert asked.failures == []


def test_a_replacement_that_fails_leaves_the_old_workers(
    start: Start, tmp_path: Path
) -> None:
    """R48: a start that failed once ended every healthy worker."""
    running = start(2)
    before = running.pids
    (tmp_path / "fails").touch()
    with load(running) as asked:
        os.kill(running.process.pid, signal.SIGUSR2)
        wait_until(lambda: running.log("worker.ended") >= 3)
    assert before <= running.pids
    assert asked.failures == []
    (tmp_path / "fails").unlink()
    wait_until(lambda: running.log("supervisor.replaced"))
    assert running.pids.isdisjoint(before)


def test_a_replacement_that_is_late_is_not_taken(start: Start, tmp_path: Path) -> None:
    running = start(2)
    before = running.pids
    (tmp_path / "late").touch()
    os.kill(running.process.pid, signal.SIGUSR2)
    wait_until(lambda: running.log("supervisor.replacing_failed"))
    wait_until(lambda: running.pids == before)
    assert running.ask()


def test_a_killed_worker_comes_back(start: Start) -> None:
    running = start(2)
    victim = min(running.pids)
    os.kill(victim, signal.SIGKILL)
    wait_until(lambda: running.log("worker.serving") == 3)
    assert len(running.pids) == 2
    assert victim not in running.pids


def test_a_worker_that_is_stopped_alone_leaves_the_port_open(start: Start) -> None:
    """It stopped the handshakes of the socket that all workers share, for good."""
    running = start(2)
    victim = min(running.pids)
    os.kill(victim, signal.SIGTERM)
    wait_until(lambda: not is_alive(victim))
    wait_until(lambda: running.log("worker.serving") == 3)
    port = int((running.folder / "port").read_text())
    for _ in range(4):
        # A dropped handshake is repeated after a second.
        socket.create_connection(("127.0.0.1", port), timeout=0.9).close()


def test_worker_that_cannot_start_is_retried_less_and_less_often(
    start: Start, tmp_path: Path
) -> None:
    running = start(2)
    (tmp_path / "fails").touch()
    victim, other = sorted(running.pids)
    os.kill(victim, signal.SIGKILL)
    with load(running) as asked:
        wait_until(lambda: running.log("worker.ended") >= 5)
    assert other in running.pids
    # Those connections that the killed worker had were cut before.
    assert asked.failures == []
    starts = [*map(_time_of, running.lines("worker.started"))][2:]
    pauses = [after - before for before, after in itertools.pairwise(starts)]
    # 0.1 s doubled up to 0.4, as the program's patience has it; the log rounds times.
    least = (0.1, 0.2, 0.4)
    assert all(
        pause > at_least - 0.01 for pause, at_least in zip(pauses, least, strict=False)
    )
    (tmp_path / "fails").unlink()
    wait_until(lambda: len(running.pids) == 2)


def test_a_worker_with_a_hanging_loop_is_replaced(start: Start, tmp_path: Path) -> None:
    running = start(2)
    victim = min(running.pids)
    os.kill(victim, signal.SIGSTOP)
    wait_until(lambda: running.log("worker.killed"))
    wait_until(lambda: len(running.pids - {victim}) == 2)


def test_a_start_that_fails_ends_with_its_status(
    factory: ProcessFactory, tmp_path: Path
) -> None:
    (tmp_path / "fails").touch()
    process = factory.start(
        "supervised",
        [sys.executable, "-m", PROGRAM, "2", str(tmp_path)],
        env={"PATH": os.environ["PATH"], "PYTHONPATH": str(ROOT)},
        cwd=tmp_path,
    )
    assert process.wait_for_exit() == 7


def test_workers_end_with_their_supervisor(start: Start) -> None:
    """An orphan would go on answering, and no one could stop it."""
    running = start(2)
    *others, youngest = sorted(running.pids)
    # It has copies of what was open when it was forked, and ends nothing by itself.
    os.kill(youngest, signal.SIGSTOP)
    os.kill(running.process.pid, signal.SIGKILL)
    try:
        wait_until(lambda: not any(map(is_alive, others)))
    finally:
        os.kill(youngest, signal.SIGCONT)
    wait_until(lambda: not is_alive(youngest))


@pytest.mark.parametrize("workers", [1, 2])
def test_a_reload_reaches_every_worker_and_replaces_none(
    start: Start, tmp_path: Path, workers: int
) -> None:
    """R59: with one worker HUP ended the program."""
    running = start(workers)
    before = running.pids
    (tmp_path / "generation").write_text("second")
    os.kill(running.process.pid, signal.SIGHUP)
    seen: set[str] = set()

    def all_have_it() -> bool:
        seen.update(pid for pid, *new in [running.ask().split()] if new)
        return len(seen) == workers

    wait_until(all_have_it)
    assert running.pids == before


@pytest.mark.parametrize("workers", [1, 2])
def test_stop_answers_requests_under_way(
    start: Start, tmp_path: Path, workers: int
) -> None:
    """R60: readiness goes first, then each next answer is the last, then the end."""
    running = start(workers)
    kept, slow = running.connect(), running.connect()
    for connection in (kept, slow):
        connection.request("GET", "/")
        connection.getresponse().read()
    slow.request("GET", "/slow")
    os.kill(running.process.pid, signal.SIGTERM)
    wait_until(lambda: _asked(kept, "/ready") == "draining")
    answer = slow.getresponse()
    assert answer.status == 200
    assert answer.getheader("connection") == "close"
    assert running.process.wait_for_exit() == 0


def _time_of(line: str) -> float:
    return datetime.fromisoformat(json.loads(line)["time"]).timestamp()


def _asked(connection: http.client.HTTPConnection, path: str) -> str:
    # It opens a new connection by itself where the last answer closed one.
    connection.request("GET", path)
    return connection.getresponse().read().decode()


def test_connections_are_spread_evenly(start: Start) -> None:
    """64 over 4 were spread 8, 56, 0 and 0."""
    running = start(4)
    # The questions while it started have ended by now.
    wait_until(lambda: running.log("worker.serving") == 4)
    connections = [running.connect() for _ in range(64)]
    for connection in connections:
        connection.connect()
    held: Counter[str] = Counter()
    for connection in connections:
        connection.request("GET", "/")
        held[connection.getresponse().read().decode().split()[0]] += 1
    assert len(held) == 4
    # A worker that gets no processor meanwhile takes fewer.
    assert all(6 <= count <= 34 for count in held.values()), held


def test_paused_supervisor_kills_no_worker(start: Start) -> None:
    """R48: after `kill -STOP` and `-CONT` every worker's last report is old."""
    running = start(2)
    before = running.pids
    os.kill(running.process.pid, signal.SIGSTOP)
    # Longer than a worker may be silent, as the program's patience has it.
    ends_at = time.monotonic() + 5
    wait_until(lambda: time.monotonic() > ends_at)
    os.kill(running.process.pid, signal.SIGCONT)
    os.kill(running.process.pid, signal.SIGHUP)
    wait_until(lambda: running.log("supervisor.reload"))
    assert running.log("worker.killed") == 0
    assert running.pids == before


def test_workers_that_end_at_the_same_time_are_replaced(
    start: Start, tmp_path: Path
) -> None:
    """R48: their links were closed unseen, and the new ones have the same numbers."""
    running = start(4)
    (tmp_path / "slow").touch()
    os.kill(running.process.pid, signal.SIGHUP)
    wait_until(lambda: running.log("supervisor.reload"))
    before = running.pids
    for pid in before:
        os.kill(pid, signal.SIGKILL)
    wait_until(lambda: not any(map(is_alive, before)))
    (tmp_path / "slow").unlink()
    wait_until(
        lambda: running.log("worker.serving") == 8 or running.log("supervisor.fault")
    )
    assert running.log("supervisor.fault") == 0


def test_a_replacement_takes_the_place_of_one_that_ended_by_itself(
    start: Start, tmp_path: Path
) -> None:
    """One worker more was there for good, and the next replacement found no place."""
    running = start(2)
    (tmp_path / "waits").touch()
    os.kill(running.process.pid, signal.SIGUSR2)
    wait_until(lambda: running.log("worker.started") == 3)
    first = json.loads(running.lines("worker.started")[0])["worker_pid"]
    os.kill(first, signal.SIGKILL)
    wait_until(lambda: running.log("worker.ended") == 1)
    (tmp_path / "waits").unlink()
    wait_until(lambda: running.log("supervisor.replaced"))
    assert len(running.pids) == 2


def test_workers_are_replaced_after_a_replacement_that_was_not_taken(
    start: Start, tmp_path: Path
) -> None:
    """While that one drained, the next try failed at once, and for its sake."""
    running = start(2)
    before = running.pids
    (tmp_path / "late").touch()
    os.kill(running.process.pid, signal.SIGUSR2)
    wait_until(lambda: running.log("supervisor.replacing_failed"))
    (tmp_path / "late").unlink()
    os.kill(running.process.pid, signal.SIGUSR2)
    wait_until(
        lambda: (
            running.log("supervisor.replaced")
            or running.log("supervisor.replacing_failed") > 1
        )
    )
    assert running.log("supervisor.replacing_failed") == 1
    assert running.pids.isdisjoint(before)


@pytest.mark.parametrize("workers", [1, 2])
def test_a_reload_while_workers_start_is_obeyed_by_them(
    factory: ProcessFactory, tmp_path: Path, workers: int
) -> None:
    """R59: SIGHUP ended a worker that had no handler yet, and at a start the
    program.
    """
    (tmp_path / "generation").write_text("second")
    (tmp_path / "holds").touch()
    running = Running(factory, tmp_path, workers, is_held=True)
    if workers > 1:
        wait_until(lambda: running.log("worker.started") == workers)
    os.kill(running.process.pid, signal.SIGHUP)
    if workers > 1:
        wait_until(lambda: running.log("supervisor.reload"))
    (tmp_path / "holds").unlink()
    seen: set[str] = set()

    def all_have_it() -> bool:
        seen.update(pid for pid, *new in [running.ask().split()] if new)
        return len(seen) == workers

    running.process.wait_until(all_have_it)
    assert running.log("worker.ended") == 0


def test_stop_is_handled_after_any_number_of_reloads(
    start: Start, tmp_path: Path
) -> None:
    """R60: the bytes for signals filled their buffer, and the stop was
    lost.
    """
    running = start(2)
    (tmp_path / "slow").touch()
    os.kill(running.process.pid, signal.SIGHUP)
    wait_until(lambda: running.log("supervisor.reload"))
    for _ in range(2_000):
        os.kill(running.process.pid, signal.SIGHUP)
        # A little time, in which the last one arrives: what waits is one.
        os.stat(tmp_path)
    os.kill(running.process.pid, signal.SIGTERM)
    (tmp_path / "slow").unlink()
    wait_until(lambda: running.log("supervisor.stopping"))
    assert running.log("supervisor.reload") == 1
    assert running.process.wait_for_exit() == 0


def test_a_worker_that_starts_ends_with_its_supervisor(
    start: Start, tmp_path: Path
) -> None:
    """It kept the port from a successor for as long as its start took."""
    running = start(2)
    (tmp_path / "waits").touch()
    os.kill(running.process.pid, signal.SIGUSR2)
    wait_until(lambda: running.log("worker.started") == 3)
    pids = running.pids
    # Its start waits for the file to go, or for a stop as a real program's does.
    os.kill(running.process.pid, signal.SIGKILL)
    wait_until(lambda: not any(map(is_alive, pids)))
