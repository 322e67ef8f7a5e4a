"""A connection to a gateway that stays open."""

from __future__ import annotations

import re
import socket


class KeptConnection:
    """A connection to HAProxy that stays open; they spread over its threads."""

    def __init__(self, port: int) -> None:
        self._stream = socket.create_connection(("127.0.0.1", port), 20)
        self._stream.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._rest = b""

    def send(self, token: str) -> None:
        text = f"GET / HTTP/1.1\r\nHost: a\r\nAuthorization: Bearer {token}\r\n\r\n"
        self._stream.sendall(text.encode())

    def status(self) -> int:
        """Return the status of one answer; 0 when there is none any more."""
        try:
            while b"\r\n\r\n" not in self._rest:
                self._read()
            head, _, self._rest = self._rest.partition(b"\r\n\r\n")
            found = re.search(rb"content-length: ([0-9]+)", head, re.I)
            length = int(found[1]) if found else 0
            while len(self._rest) < length:
                self._read()
        except ConnectionError:
            return 0
        self._rest = self._rest[length:]
        return int(head.split(b" ")[1])

    def _read(self) -> None:
        data = self._stream.recv(65536)
        if not data:
            raise ConnectionError
        self._rest += data

    def close(self) -> None:
        self._stream.close()
