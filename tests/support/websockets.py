"""A WebSocket client over a plain socket, so that a test writes every header."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from contextlib import contextmanager

from wsproto import ConnectionType, WSConnection
from wsproto.events import (
    AcceptConnection,
    CloseConnection,
    Event,
    RejectConnection,
    Request,
    TextMessage,
)

from tests.support.raw_http import HeaderLines


class RefusedError(Exception):
    """The handshake was answered with this status."""

    def __init__(self, status: int) -> None:
        super().__init__(status)
        self.status = status


class WebSocket:
    """An open WebSocket.

    Args:
        connection: connected; read and written here alone.
        target: path and query.
        headers: sent with the handshake.

    Raises:
        RefusedError: when the handshake is not answered with 101.
    """

    def __init__(
        self, connection: socket.socket, target: str, headers: HeaderLines
    ) -> None:
        self._connection = connection
        self._state = WSConnection(ConnectionType.CLIENT)
        self._events: list[Event] = []
        extra = [(name.encode(), value.encode()) for name, value in headers]
        self._send(Request(host="127.0.0.1", target=target, extra_headers=extra))
        answer = self._next()
        if isinstance(answer, RejectConnection):
            raise RefusedError(answer.status_code)
        assert isinstance(answer, AcceptConnection)

    def say(self, text: str) -> None:
        """Send a text message."""
        self._send(TextMessage(data=text))

    def hear(self) -> str:
        """Return the next text message."""
        text = ""
        while True:
            event = self._next()
            assert isinstance(event, TextMessage), event
            text += event.data
            if event.message_finished:
                return text

    def close(self) -> None:
        """Close it from this end."""
        self._send(CloseConnection(code=1000))

    def _send(self, event: Event) -> None:
        self._connection.sendall(self._state.send(event))

    def _next(self) -> Event:
        while not self._events:
            received = self._connection.recv(65_536)
            self._state.receive_data(received or None)
            self._events.extend(self._state.events())
        return self._events.pop(0)


@contextmanager
def websocket(
    port: int, target: str, headers: HeaderLines = (), *, timeout: float = 10.0
) -> Iterator[WebSocket]:
    """Open a WebSocket to a loopback port; closed at the end.

    Raises:
        RefusedError: when the handshake is not answered with 101.
    """
    with socket.create_connection(("127.0.0.1", port), timeout) as connection:
        yield WebSocket(connection, target, headers)
