"""Good checks at a steady pace, and how long each took."""

from __future__ import annotations

import selectors
import socket
import statistics
import time
from collections import deque
from dataclasses import dataclass, field
from typing import Final

#: Checks a second, over so many kept connections.
RATE: Final = 400
WIDTH: Final = 10


@dataclass
class Taken:
    """The results of one stretch of good checks.

    Attributes:
        latencies: seconds from the moment a check was due to its answer.
        failed: checks that were not answered with 200.
    """

    latencies: list[float] = field(default_factory=list)
    failed: int = 0

    @property
    def p99(self) -> float:
        """The 99th percentile of the latencies, seconds."""
        return statistics.quantiles(self.latencies, n=100)[98]

    @property
    def median(self) -> float:
        """The median of the latencies, seconds."""
        return statistics.median(self.latencies)


class GoodChecks:
    """A gateway with kept connections.

    A check is sent when it is due, whether or not the one before was answered: a stall
    costs every check that falls into it.

    Args:
        address: the port or unix socket that is asked.
        token: a good one.
    """

    def __init__(self, address: int | str, token: str) -> None:
        self._check = (
            b"GET /verify/nginx HTTP/1.1\r\nHost: v\r\nAuthorization: Bearer "
            + token.encode()
            + b"\r\n\r\n"
        )
        self._address = address
        self._selector = selectors.DefaultSelector()
        self._due: dict[socket.socket, deque[float]] = {}

    def run(self, seconds: float) -> Taken:
        """Ask for that long, then wait for the last answers."""
        taken = Taken()
        ways = [self._open() for _ in range(WIDTH)]
        start = time.perf_counter()
        count = int(seconds * RATE)
        for number in range(count):
            due = start + number / RATE
            self._receive_until(due, taken)
            way = ways[number % WIDTH]
            if way in self._due:
                self._due[way].append(due)
                way.sendall(self._check)
            else:
                taken.failed += 1
        end = time.perf_counter() + 5.0
        while any(self._due.values()) and time.perf_counter() < end:
            self._receive_until(time.perf_counter() + 0.05, taken)
        taken.failed += sum(map(len, self._due.values()))
        for way in list(self._due):
            self._close(way)
        return taken

    def _open(self) -> socket.socket:
        if isinstance(self._address, str):
            way = socket.socket(socket.AF_UNIX)
            way.connect(self._address)
        else:
            way = socket.create_connection(("127.0.0.1", self._address), 10)
            way.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._due[way] = deque()
        self._selector.register(way, selectors.EVENT_READ)
        return way

    def _close(self, way: socket.socket) -> None:
        self._selector.unregister(way)
        del self._due[way]
        way.close()

    def _receive_until(self, end: float, taken: Taken) -> None:
        while (left := end - time.perf_counter()) > 0:
            for key, _ in self._selector.select(left):
                way = key.fileobj
                assert isinstance(way, socket.socket)
                self._receive(way, taken)

    def _receive(self, way: socket.socket, taken: Taken) -> None:
        try:
            data = way.recv(65_536)
        except OSError:
            data = b""
        now = time.perf_counter()
        if not data:
            taken.failed += len(self._due[way])
            self._close(way)
            return
        for head in data.split(b"\r\n\r\n")[:-1]:
            taken.latencies.append(now - self._due[way].popleft())
            taken.failed += not head.startswith(b"HTTP/1.1 200 ")
