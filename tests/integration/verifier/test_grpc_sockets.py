"""Which connections of grpcio's server are ended, on plain sockets (R43)."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from contextlib import ExitStack

import pytest

from verifier.wire.connections import Admission, trust_peers
from verifier.wire.grpc.sockets import SocketWatch

TICK = 0.0
TRUSTED = "127.0.0.1"
STRANGER = "127.0.0.2"


class Port:
    """A listener whose connections are watched.

    Attributes:
        admission: decides; ten connections in all.
        watch: looks at them.
    """

    def __init__(self, held: ExitStack) -> None:
        self._held = held
        self._listener = held.enter_context(socket.create_server((TRUSTED, 0)))
        number = self._listener.getsockname()[1]
        self.admission = Admission(trust_peers([f"{TRUSTED}/32"]), 10)
        self.watch = SocketWatch(number, self.admission)

    def connect(self, host: str = TRUSTED) -> tuple[socket.socket, socket.socket]:
        """Return the client's end of a new connection, and the server's."""
        client = self._held.enter_context(
            socket.create_connection(
                self._listener.getsockname(), 10, source_address=(host, 0)
            )
        )
        return client, self._held.enter_context(self._listener.accept()[0])


@pytest.fixture
def port() -> Iterator[Port]:
    with ExitStack() as held:
        yield Port(held)


def is_ended(client: socket.socket) -> bool:
    client.setblocking(False)
    try:
        return client.recv(1) == b""
    except BlockingIOError:
        return False


def test_a_stranger_is_ended_and_a_gateway_is_not(port: Port) -> None:
    gateway, _ = port.connect()
    stranger, _ = port.connect(STRANGER)
    port.watch.sweep(TICK)
    assert (is_ended(gateway), is_ended(stranger)) == (False, True)
    assert port.admission.refused["untrusted"] == 1


def test_a_peer_that_leaks_connections_loses_the_newest(port: Port) -> None:
    first = [port.connect()[0] for _ in range(9)]
    port.watch.sweep(TICK)
    late, _ = port.connect()
    port.watch.sweep(TICK)
    assert [is_ended(client) for client in (*first, late)] == [False] * 9 + [True]
    assert port.admission.refused["peer_full"] == 1


def test_closed_connections_are_not_counted_any_more(port: Port) -> None:
    for _ in range(3):
        pairs = [port.connect() for _ in range(9)]
        port.watch.sweep(TICK)
        assert not any(is_ended(client) for client, _ in pairs)
        for client, server in pairs:
            server.close()
            client.close()


def test_other_sockets_of_the_process_are_left_alone(port: Port) -> None:
    with ExitStack() as held:
        other = Port(held)
        stranger, _ = other.connect(STRANGER)
        left, right = (held.enter_context(end) for end in socket.socketpair())
        port.watch.sweep(TICK)
        assert not is_ended(stranger)
        assert not is_ended(left)
        assert not is_ended(right)
