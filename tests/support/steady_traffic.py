"""Steady traffic to verifiers in turn, and what it measures of each."""

from __future__ import annotations

import os
import resource
import select
import socket
import statistics
import sys
import time
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

from tests.support.issuer_simulator import FEED_TOKEN
from tests.support.processes import Process, ProcessFactory, free_port
from tests.support.raw_http import send
from tests.support.tokens import AUDIENCE, ISSUER


@dataclass
class Gate:
    """A running verifier.

    Attributes:
        port: where it is asked.
        process: the process.
        good, bad: requests it answers 200 and 401.
    """

    port: int
    process: Process
    good: bytes
    bad: bytes

    @property
    def resident(self) -> int:
        """Its resident memory, bytes."""
        pages = Path(f"/proc/{self.process.pid}/statm").read_text().split()[1]
        return int(pages) * resource.getpagesize()

    @property
    def open_files(self) -> int:
        """Its open files, connections among them."""
        return len(os.listdir(f"/proc/{self.process.pid}/fd"))


def start_verifier(
    factory: ProcessFactory, name: str, url: str, cwd: Path, **settings: str
) -> tuple[int, int, Process]:
    """Start a verifier that follows the issuer at `url`.

    Returns:
        Its port, its operators' port and the process.
    """
    port, admin = free_port(), free_port()
    env = os.environ | {
        "VERIFIER_ISSUER_URL": ISSUER,
        "VERIFIER_AUDIENCE": AUDIENCE,
        "VERIFIER_JWKS_URL": f"{url}/.well-known/jwks.json",
        "VERIFIER_FEED_URL": f"{url}/revocations",
        "VERIFIER_FEED_TOKEN": FEED_TOKEN,
        "VERIFIER_BIND": f"127.0.0.1:{port}",
        "VERIFIER_ADMIN_BIND": f"127.0.0.1:{admin}",
        **settings,
    }
    process = factory.start(
        name,
        (sys.executable, "-m", "verifier"),
        env=env,
        cwd=cwd,
        ready=lambda: send(admin, "GET", "/readyz").status == 200,
    )
    return port, admin, process


def a_check(token: bytes) -> bytes:
    """Return a check request with this token."""
    head = b"GET /verify/nginx HTTP/1.1\r\nHost: a\r\nAuthorization: Bearer "
    return head + token + b"\r\n\r\n"


class Awaited(NamedTuple):
    """An answer under way: due since, of which gate, how it must begin."""

    due: float
    of: int
    head: bytes


@dataclass
class Traffic:
    """Good traffic at a steady pace over kept connections, to each of some gates in
    turn.

    A request is sent when its time has come, whether or not the one before was
    answered, and its latency counts from then: a stall costs every request that falls
    into it. Gates that are asked in turn meet the same moments of a busy machine.

    Attributes:
        gates: the gates that get the requests.
        rate: requests a second to each.
        width: connections to each.
        latencies: of each gate, seconds, one for each answer.
        wrong: answers that were not the right ones.
    """

    gates: Sequence[Gate]
    rate: int = 500
    width: int = 10
    wrong: list[bytes] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.latencies: list[list[float]] = [[] for _ in self.gates]

    def run(self, seconds: float) -> None:
        """Ask for that long, then wait for the last answers."""
        self._awaited: dict[socket.socket, deque[Awaited]] = {}
        ways = []
        for number in range(self.width * len(self.gates)):
            port = self.gates[number % len(self.gates)].port
            connection = socket.create_connection(("127.0.0.1", port), 10)
            connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            self._awaited[connection] = deque()
            ways.append(connection)
        start = time.perf_counter()
        rate = self.rate * len(self.gates)
        for number in range(int(seconds * rate)):
            due = start + number / rate
            self._receive_until(due)
            of = number % len(self.gates)
            # Every fifth shows a bad token: also refusals must stay right.
            is_bad = number // len(self.gates) % 5 == 4
            head = b"HTTP/1.1 401 " if is_bad else b"HTTP/1.1 200 "
            connection = ways[number % len(ways)]
            self._awaited[connection].append(Awaited(due, of, head))
            gate = self.gates[of]
            connection.sendall(gate.bad if is_bad else gate.good)
        self._receive_until(time.perf_counter() + 10.0)
        for connection in ways:
            connection.close()

    def _receive_until(self, end: float) -> None:
        """Take answers until that time, or the last awaited one when it comes first."""
        is_last = end > time.perf_counter() + 1.0
        while (left := end - time.perf_counter()) > 0:
            if is_last and not any(self._awaited.values()):
                return
            ready, _, _ = select.select(list(self._awaited), [], [], left)
            now = time.perf_counter()
            for connection in ready:
                for head in connection.recv(65_536).split(b"\r\n\r\n")[:-1]:
                    awaited = self._awaited[connection].popleft()
                    self.latencies[awaited.of].append(now - awaited.due)
                    if not head.startswith(awaited.head):
                        self.wrong.append(head)
        assert not is_last, "answers are missing"


def p99(latencies: list[float]) -> float:
    """Return the 99th percentile."""
    return statistics.quantiles(latencies, n=100)[98]


def compare(
    gates: Sequence[Gate], seconds: float, of: Callable[[list[float]], float]
) -> float:
    """Return good traffic's latency at the first gate, as a multiple of the second.

    Args:
        gates: the two.
        seconds: how long they are asked.
        of: the figure of their latencies that is compared.
    """
    traffic = Traffic(gates)
    traffic.run(seconds)
    assert traffic.wrong == []
    return of(traffic.latencies[0]) / of(traffic.latencies[1])
