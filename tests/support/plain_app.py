"""An application written as bytes on a socket, for acts that no framework has."""

from __future__ import annotations

import socketserver
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress

#: Gets each connection after its first request's head was read; may read and write on.
Handler = Callable[["Connection"], None]


class Connection(socketserver.StreamRequestHandler):
    """One connection of a gateway.

    Attributes:
        head: the first request's line and headers as they came.
    """

    head: bytes

    def handle(self) -> None:
        self.head = self.read_head()
        if self.head:
            assert isinstance(self.server, _Server)
            self.server.handler(self)

    def read_head(self) -> bytes:
        """Return the next request's head; empty when the gateway has closed."""
        lines: list[bytes] = []
        # At the end of the connection each further line is empty.
        while (line := self.rfile.readline()) not in {b"\r\n", b""}:
            lines.append(line)
        return b"".join(lines) if line else b""

    def write(self, data: bytes) -> None:
        """Send."""
        self.wfile.write(data)

    def wait_for_close(self) -> None:
        """Return when the gateway has closed the connection, with FIN or with RST."""
        # HAProxy ends a connection that it does not need with RST.
        with suppress(ConnectionResetError):
            while self.rfile.read(1):
                pass


class _Server(socketserver.ThreadingTCPServer):
    daemon_threads = True
    allow_reuse_address = True
    request_queue_size = 2_048

    def __init__(self, port: int, handler: Handler) -> None:
        super().__init__(("127.0.0.1", port), Connection)
        self.handler = handler

    def handle_error(self, *_: object) -> None:
        """A gateway may leave at any time."""


@contextmanager
def plain_app(port: int, handler: Handler) -> Iterator[None]:
    """Serve connections with `handler`, each in a thread of its own, until the end."""
    server = _Server(port, handler)
    thread = threading.Thread(target=server.serve_forever, args=(0.02,))
    thread.start()
    try:
        yield
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
