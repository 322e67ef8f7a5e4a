"""Requests that go on while a program behind a gateway is reloaded, replaced and
killed.
"""

from __future__ import annotations

import http.client
import os
import signal
import threading
import time
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import NamedTuple

from tests.support.processes import Process, descendants, is_alive, wait_until
from tests.support.stack import Stack

#: The gateways before a program in trouble. What they do with a broken connection is
#: tested for each gateway in tests/gateways/test_verifier_away.py; eight of them here
#: would make `make test` twice as long.
GATEWAYS = ("nginx", "envoy")
#: Seconds a token is used: less than it lives.
TOKEN_SECONDS = 60.0


class Request(NamedTuple):
    """A request, and the status that it must be answered with."""

    method: str
    path: str
    headers: Mapping[str, str]
    body: bytes
    wanted: int


#: Makes the next request.
Ask = Callable[[], Request]


class Load:
    """Threads that ask a gateway on kept connections, and record what is not as it must
    be.

    Args:
        port: the gateway's.
        ask: makes a request; called by each thread for each.
        threads: how many.
    """

    def __init__(self, port: int, ask: Ask, threads: int = 4) -> None:
        self._port = port
        self._ask = ask
        self._stopping = threading.Event()
        self.answers: Counter[int] = Counter()
        self.failures: list[str] = []
        self._threads = [threading.Thread(target=self._run) for _ in range(threads)]

    def __enter__(self) -> Load:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stopping.set()
        for thread in self._threads:
            thread.join()

    def summary(self) -> str:
        """Return how many requests failed, of how many."""
        return f"{len(self.failures)} of {self.answers.total()} failed"

    def _run(self) -> None:
        connection = http.client.HTTPConnection("127.0.0.1", self._port, timeout=60)
        while not self._stopping.is_set():
            method, path, headers, body, wanted = self._ask()
            try:
                connection.request(method, path, body, dict(headers))
                answer = connection.getresponse()
                answer.read()
            except (OSError, http.client.HTTPException) as error:
                self._fail(repr(error))
                connection.close()
                continue
            self.answers[answer.status] += 1
            if answer.status != wanted:
                self._fail(f"{method} {path}: {answer.status} instead of {wanted}")
            time.sleep(0.002)
        connection.close()

    def _fail(self, what: str) -> None:
        self.failures.append(f"{time.strftime('%H:%M:%S')} {what}")


def repeat(act: Callable[[], None], times: int, load: Load) -> list[str]:
    """Do something so many times under load; return the failures meanwhile."""
    with load:
        for _ in range(times):
            act()
    return load.failures


class Tokens:
    """A live token of the demo's program, fetched anew before it ends."""

    def __init__(self, stack: Stack) -> None:
        self._stack = stack
        self._lock = threading.Lock()
        self._token, self._fetched_at = "", float("-inf")

    def __call__(self) -> str:
        with self._lock:
            if time.monotonic() - self._fetched_at > TOKEN_SECONDS:
                self._token = self._stack.client_credentials().access_token
                self._fetched_at = time.monotonic()
            return self._token


@dataclass
class Supervised:
    """A program with workers, to do things to.

    Attributes:
        start: starts it and returns when it is ready.
        process: the running one.
        workers: how many it keeps.
        log: reads what it has logged; None: what its process has written.
    """

    start: Callable[[], Process]
    process: Process
    workers: int = 2
    log: Callable[[], str] | None = None

    def _count(self, event: str) -> int:
        text = self.process.log() if self.log is None else self.log()
        return text.count(f'"{event}"')

    def _await_more(self, event: str, before: int) -> None:
        self.process.wait_until(lambda: self._count(event) > before, what=event)

    @property
    def pids(self) -> list[int]:
        return sorted(filter(is_alive, descendants(self.process.pid)))

    def reload(self) -> None:
        before = self._count("reload.done")
        self.process.send_signal(signal.SIGHUP)
        self.process.wait_until(
            lambda: self._count("reload.done") >= before + self.workers, what="reload"
        )

    def replace(self) -> None:
        before = self._count("supervisor.replaced")
        self.process.send_signal(signal.SIGUSR2)
        self._await_more("supervisor.replaced", before)

    def kill_worker(self) -> None:
        before = self._count("worker.serving")
        os.kill(self.pids[0], signal.SIGKILL)
        self._await_more("worker.serving", before)

    def hang_worker(self) -> None:
        before = self._count("worker.serving")
        os.kill(self.pids[0], signal.SIGSTOP)
        self._await_more("worker.serving", before)

    def restart(self) -> None:
        self.process.send_signal(signal.SIGTERM)
        assert self.process.wait_for_exit() == 0
        self.process = self.start()
        wait_until(lambda: self._count("worker.serving") >= self.workers)
