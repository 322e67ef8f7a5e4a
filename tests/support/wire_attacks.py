"""Attacks on one port that make a server without budgets grow."""

from __future__ import annotations

import itertools
import selectors
import socket
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Final

_POST: Final = b"POST /x HTTP/1.1\r\nHost: a\r\n"
_CHUNKED: Final = _POST + b"Transfer-Encoding: chunked\r\n\r\n"
_GET: Final = b"GET /%b HTTP/1.1\r\nHost: a\r\n\r\n"
_FILL: Final = b"a" * 65_536


@dataclass(frozen=True)
class Attack:
    """The bytes of each connection.

    Attributes:
        opening: first.
        rest: again and again, as far as the server takes it.
        reads: answers are read.
    """

    opening: bytes = b""
    rest: bytes = b""
    reads: bool = True


#: The requests of honest clients, as large as they may be.
HONEST: Final = Attack(
    b"", _POST + b"Content-Length: 16000\r\n\r\n" + b"a" * 16_000 + _GET % b"metrics"
)
ATTACKS: Final = {
    "endless target": Attack(b"GET /", _FILL),
    "endless header": Attack(b"GET /x HTTP/1.1\r\nX: ", _FILL),
    "almost whole heads": Attack(b"GET /x HTTP/1.1\r\nX: " + b"a" * 16_000),
    "endless body": Attack(_POST + b"Content-Length: 999999999\r\n\r\n", _FILL),
    "endless chunks": Attack(_CHUNKED, b"10000\r\n" + _FILL + b"\r\n"),
    "tiny chunks": Attack(_CHUNKED, b"1\r\na\r\n" * 10_000),
    "chunk extensions": Attack(_CHUNKED + b"1;", _FILL),
    "one endless trailer": Attack(_CHUNKED + b"0\r\nX", _FILL),
    "trailers": Attack(_CHUNKED + b"0\r\n", b"X: a\r\n" * 10_000),
    "pipelining": Attack(b"", _GET % b"x" * 1_000),
    "answers not read": Attack(b"", _GET % b"metrics" * 1_000, reads=False),
    "documents not read": Attack(b"", _GET % b"openapi.json" * 1_000, reads=False),
    "files not read": Attack(
        b"", _GET % b"docs/swagger-ui-bundle.js" * 1_000, reads=False
    ),
    "garbage": Attack(b"", b"\x16\x03\x01" * 20_000),
    "silence": Attack(),
}


@dataclass
class Attackers:
    """Connections that attack one port of loopback, each opened anew when it is ended.

    Attributes:
        ended: how many the server ended.
    """

    port: int
    attack: Attack
    count: int
    ended: int = 0
    _selector: selectors.BaseSelector = field(default_factory=selectors.DefaultSelector)

    def run(self, seconds: float) -> None:
        """Attack for that long, with little rest."""
        end = time.monotonic() + seconds
        for _ in range(self.count):
            self._open()
        while time.monotonic() < end:
            for key, events in self._selector.select(0.05):
                self._step(key.fileobj, key.data, events)  # type: ignore[arg-type]

    def close(self) -> None:
        """End all."""
        for key in list(self._selector.get_map().values()):
            key.fileobj.close()  # type: ignore[union-attr]
        self._selector.close()

    def _open(self) -> None:
        attack = self.attack
        way = socket.socket()
        if not attack.reads:
            take_little(way)
        way.settimeout(10)
        way.connect(("127.0.0.1", self.port))
        way.setblocking(False)
        parts = itertools.chain(
            [attack.opening] * bool(attack.opening),
            itertools.repeat(attack.rest) if attack.rest else (),
        )
        wanted = selectors.EVENT_WRITE | (selectors.EVENT_READ if attack.reads else 0)
        self._selector.register(way, wanted, _Rest(parts))

    def _step(self, way: socket.socket, rest: _Rest, events: int) -> None:
        try:
            if events & selectors.EVENT_READ and not way.recv(65_536):
                raise ConnectionError
            if events & selectors.EVENT_WRITE:
                if part := rest.next():
                    rest.sent(way.send(part))
                elif self.attack.reads:
                    self._selector.modify(way, selectors.EVENT_READ, rest)
        except BlockingIOError:
            pass
        except OSError:
            self._selector.unregister(way)
            way.close()
            self.ended += 1
            self._open()


def take_little(way: socket.socket) -> None:
    """Have the kernel take few answers for a peer; call it before it connects.

    Else both kernels take some 4 MB for each, and a minute ends before 200 connections
    have made anything wait in the server.
    """
    way.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1)
    way.setsockopt(socket.IPPROTO_TCP, socket.TCP_MAXSEG, 536)


class _Rest:
    """The bytes that a connection has still to send."""

    def __init__(self, parts: Iterator[bytes]) -> None:
        self._parts = parts
        self._part = b""

    def next(self) -> bytes:
        """Return the bytes to send next; empty when there are none."""
        if not self._part:
            self._part = next(self._parts, b"")
        return self._part

    def sent(self, size: int) -> None:
        """Note that so much of it was sent."""
        self._part = self._part[size:]
