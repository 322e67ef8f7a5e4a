"""A TCP or TLS server that answers with given bytes, right or wrong."""

from __future__ import annotations

import socket
import ssl
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress

#: Takes a connection after its request was read, and answers it or not.
Answer = Callable[[socket.socket], None]


class RawServer:
    """A listening server.

    Attributes:
        url: its base.
        answer: answers from now on; the connection stays open when it returns.
        tls: the TLS side of connections from now on; None: plain.
        connections: how many there were.
        requests: the heads of all requests.
    """

    def __init__(self, answer: Answer, tls: ssl.SSLContext | None, host: str) -> None:
        self.answer = answer
        self.tls = tls
        self.connections = 0
        self.requests: list[bytes] = []
        self._open: list[socket.socket] = []
        self._listener = socket.create_server((host, 0))
        self.port: int = self._listener.getsockname()[1]
        scheme = "http" if tls is None else "https"
        self.url = f"{scheme}://{host}:{self.port}"
        self._threads = [threading.Thread(target=self._accept)]
        self._threads[0].start()

    def _accept(self) -> None:
        with suppress(OSError):
            while True:
                connection, _ = self._listener.accept()
                self.connections += 1
                self._open.append(connection)
                thread = threading.Thread(target=self._serve, args=(connection,))
                self._threads.append(thread)
                thread.start()

    def _serve(self, connection: socket.socket) -> None:
        with suppress(OSError, ValueError):
            if self.tls is not None:
                connection = self.tls.wrap_socket(connection, server_side=True)
                self._open.append(connection)
            while head := _read_head(connection):
                self.requests.append(head)
                self.answer(connection)

    def close(self) -> None:
        """Stop listening, and end every connection."""
        for end in (self._listener, *self._open):
            with suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)
            end.close()
        for thread in self._threads:
            thread.join(10)


def _read_head(connection: socket.socket) -> bytes:
    head = b""
    while not head.endswith(b"\r\n\r\n"):
        more = connection.recv(1)
        if not more:
            return b""
        head += more
    return head


@contextmanager
def raw_server(
    answer: Answer, tls: ssl.SSLContext | None = None, host: str = "127.0.0.1"
) -> Iterator[RawServer]:
    """Serve until the block ends."""
    server = RawServer(answer, tls, host)
    try:
        yield server
    finally:
        server.close()


def saying(*parts: bytes) -> Answer:
    """Return an answer of these bytes."""

    def answer(connection: socket.socket) -> None:
        for part in parts:
            connection.sendall(part)

    return answer


def then_closing(*parts: bytes) -> Answer:
    """Return an answer of these bytes, behind which the connection ends."""

    def answer(connection: socket.socket) -> None:
        for part in parts:
            connection.sendall(part)
        connection.close()

    return answer


def http(body: bytes, *headers: str, status: str = "200 OK") -> bytes:
    """Return an answer with this body."""
    lines = [f"HTTP/1.1 {status}", f"Content-Length: {len(body)}", *headers, "", ""]
    return "\r\n".join(lines).encode() + body
