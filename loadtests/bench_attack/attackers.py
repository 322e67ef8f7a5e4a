"""Hostile connections: `python -m loadtests.bench_attack.attackers PORT KIND ...`.

Each sends without end, by its kind, to a port of loopback; a closed connection is
opened again, at a bounded rate. The program ends by itself. The last line it prints
has the number of connections it opened.
"""

from __future__ import annotations

import argparse
import os
import selectors
import socket
import sys
import time
from typing import Final, NamedTuple

#: Connections opened in a second at most.
OPENED: Final = 2_000
_CHECK: Final = b"GET /verify/nginx HTTP/1.1\r\nHost: v\r\n"
_CHUNKED: Final = _CHECK + b"Transfer-Encoding: chunked\r\n\r\n"


class Kind(NamedTuple):
    """How one attacks.

    Attributes:
        opening: sent first.
        filler: sent again and again; empty to fall silent.
        reads: whether answers are read.
    """

    opening: bytes
    filler: bytes
    reads: bool = True


KINDS: Final = {
    "trailers": Kind(_CHUNKED + b"0\r\n", b"X-Trailer: aaaaaaaaaaaaaaaaaaaa\r\n" * 500),
    "extensions": Kind(_CHUNKED + b"1;", b"a" * 16_384),
    "body": Kind(_CHECK + b"Content-Length: 1000000000\r\n\r\n", b"a" * 16_384),
    "head": Kind(_CHECK + b"X-Long: ", b"a" * 4_096),
    "many-headers": Kind(_CHECK, b"a:\r\n" * 1_000),
    "half": Kind(_CHECK + b"X-Long: " + b"a" * 16_000, b""),
    "full-then-idle": Kind(_CHECK + b"a: %b\r\n" % (b"b" * 150) * 95 + b"\r\n", b""),
    "pipeline": Kind(b"", (_CHECK + b"\r\n") * 100),
    "pipeline-unread": Kind(b"", (_CHECK + b"\r\n") * 100, reads=False),
}


class Attackers:
    """All hostile connections to one address.

    Args:
        address: a port of loopback, or the path of a unix socket.
        kind: of their requests.
        count: how many there are.
        source: the address they come from.
    """

    def __init__(
        self, address: int | str, kind: Kind, count: int, source: str = "127.0.0.1"
    ) -> None:
        self._address = address
        self._kind = kind
        self._count = count
        self._source = source
        self._selector = selectors.DefaultSelector()
        self._unsent: dict[socket.socket, memoryview] = {}
        self._may_open = 1.0 * count
        self.opened = 0

    def run(self, seconds: float) -> None:
        """Attack for that long."""
        now = time.monotonic()
        end = now + seconds
        while now < end:
            while len(self._unsent) < self._count and self._may_open >= 1.0:
                self._may_open -= 1.0
                self._open()
            for key, events in self._selector.select(0.005):
                connection = key.fileobj
                assert isinstance(connection, socket.socket)
                try:
                    self._serve(connection, events)
                except BlockingIOError:
                    continue
                except OSError:
                    self._close(connection)
            now, before = time.monotonic(), now
            more = (now - before) * OPENED
            self._may_open = min(self._may_open + more, 1.0 * self._count)

    def _open(self) -> None:
        is_unix = isinstance(self._address, str)
        connection = socket.socket(socket.AF_UNIX if is_unix else socket.AF_INET)
        try:
            if isinstance(self._address, str):
                connection.connect(self._address)
                connection.setblocking(False)
            else:
                connection.bind((self._source, 0))
                connection.setblocking(False)
                connection.connect_ex(("127.0.0.1", self._address))
        except OSError:
            connection.close()
            return
        self.opened += 1
        self._unsent[connection] = memoryview(self._kind.opening)
        self._selector.register(
            connection, selectors.EVENT_READ | selectors.EVENT_WRITE
        )

    def _serve(self, connection: socket.socket, events: int) -> None:
        if events & selectors.EVENT_WRITE:
            unsent = self._unsent[connection] or memoryview(self._kind.filler)
            if unsent:
                self._unsent[connection] = unsent[connection.send(unsent) :]
            else:
                self._selector.modify(connection, selectors.EVENT_READ)
        if events & selectors.EVENT_READ:
            if not self._kind.reads:
                # Only an end is looked for.
                if not connection.recv(1, socket.MSG_PEEK):
                    self._close(connection)
                else:
                    self._selector.modify(connection, selectors.EVENT_WRITE)
            elif not connection.recv(262_144):
                self._close(connection)

    def _close(self, connection: socket.socket) -> None:
        self._selector.unregister(connection)
        del self._unsent[connection]
        connection.close()


def main() -> int:
    """Attack as given on the command line."""
    parser = argparse.ArgumentParser(description="Hostile connections to loopback.")
    parser.add_argument("address", help="a port, or the path of a unix socket")
    parser.add_argument("kind", choices=KINDS)
    parser.add_argument("--count", type=int, required=True)
    parser.add_argument("--seconds", type=float, required=True)
    parser.add_argument("--source", default="127.0.0.1")
    options = parser.parse_args()
    # The measurement goes first on the processor that both have.
    os.nice(10)
    address = int(options.address) if options.address.isdigit() else options.address
    kind = KINDS[options.kind]
    attackers = Attackers(address, kind, options.count, options.source)
    attackers.run(options.seconds)
    print(attackers.opened)
    return 0


if __name__ == "__main__":
    sys.exit(main())
