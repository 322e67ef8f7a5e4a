"""How a worker takes connections beside others (R47, R48)."""

from __future__ import annotations

import asyncio
import errno
import os
import socket
from collections.abc import AsyncIterator, Callable
from functools import partial
from pathlib import Path

import pytest

from shared.serving.workers.acceptor import Acceptor, Share
from shared.serving.workers.handshakes import drop_handshakes
from shared.serving.workers.occupancy import Occupancy
from tests.support.processes import eventually

MINE, OTHERS = 0, 1


class AdminDependencies(Acceptor):
    """Counts how often it left connections to others, or had to rest."""

    rests = 0

    def _rest(self, seconds: float) -> None:
        self.rests += 1
        super()._rest(seconds)


class Exhausted(socket.socket):
    """A listening socket of a process that has no descriptor left."""

    def accept(self) -> tuple[socket.socket, object]:
        raise OSError(errno.EMFILE, os.strerror(errno.EMFILE))


class Kept(asyncio.Protocol):
    """A connection that its peer ends."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = transport


@pytest.fixture
async def clients() -> AsyncIterator[Callable[[socket.socket, int], None]]:
    opened: list[socket.socket] = []

    def connect(listener: socket.socket, count: int) -> None:
        place = listener.getsockname()
        opened.extend(socket.create_connection(place) for _ in range(count))

    yield connect
    for each in opened:
        each.close()


def make(made: list[Kept]) -> Kept:
    made.append(Kept())
    return made[-1]


def listen(kind: type[socket.socket] = socket.socket) -> socket.socket:
    listener = kind(socket.AF_INET, socket.SOCK_STREAM)
    listener.bind(("127.0.0.1", 0))
    listener.listen(512)
    return listener


async def test_many_connections_do_not_wait_for_a_worker_that_hangs(
    clients: Callable[[socket.socket, int], None],
) -> None:
    """Each was left to it for 5 ms, one after the other: 200 a second were taken."""
    occupancy, listener = Occupancy(2), listen()
    occupancy.write(OTHERS, 0)
    clients(listener, 200)
    made: list[Kept] = []
    acceptor = AdminDependencies(
        listener, partial(make, made), lambda: len(made), Share(occupancy, MINE)
    )

    async def has_all() -> bool:
        return len(made) == 200

    await eventually(has_all)
    acceptor.close()
    await acceptor.wait_closed()
    for each in made:
        each.transport.close()
    assert 1 <= acceptor.rests <= 20


async def test_connections_accepted_last_do_not_count(
    clients: Callable[[socket.socket, int], None],
) -> None:
    """The others would leave connections to a worker that takes none any more."""
    occupancy, listener = Occupancy(2), listen()
    made: list[Kept] = []
    acceptor = Acceptor(
        listener, partial(make, made), lambda: len(made), Share(occupancy, MINE)
    )
    clients(listener, 3)
    acceptor.close(takes_rest=True)
    await acceptor.wait_closed()
    for each in made:
        each.transport.close()
    assert len(made) == 3
    assert occupancy.is_least(OTHERS, 1_000)


class LateClients(socket.socket):
    """A listening socket; a client connects each time when no other waits any more."""

    def __init__(self, *args: int) -> None:
        super().__init__(*args)
        self.clients: list[socket.socket] = []

    def accept(self) -> tuple[socket.socket, object]:
        try:
            return super().accept()
        except BlockingIOError:
            client = socket.socket(self.family)
            client.setblocking(False)
            client.connect_ex(self.getsockname())
            self.clients.append(client)
            raise


@pytest.mark.parametrize("family", [socket.AF_INET, socket.AF_INET6])
async def test_client_that_comes_while_the_port_closes_is_not_reset(
    family: socket.AddressFamily,
) -> None:
    """A gateway asks another server if there was no connection; a POST that was sent on
    one and reset is lost.
    """
    listener = LateClients(family, socket.SOCK_STREAM)
    listener.bind(("127.0.0.1" if family == socket.AF_INET else "::1", 0))
    listener.listen(512)
    early = socket.create_connection(listener.getsockname()[:2])
    made: list[Kept] = []
    acceptor = Acceptor(listener, partial(make, made), lambda: len(made))
    acceptor.drop_handshakes()
    acceptor.close(takes_rest=True)
    await acceptor.wait_closed()
    assert len(made) == 1
    (late,) = listener.clients
    # The system has sent the client's first packet again, to a closed port.
    loop = asyncio.get_running_loop()
    with pytest.raises(ConnectionRefusedError):
        await asyncio.wait_for(loop.sock_sendall(late, b"POST"), 30)
    for each in made:
        each.transport.close()
    for client in (early, late):
        client.close()


@pytest.mark.parametrize("family", [socket.AF_INET, socket.AF_UNIX])
async def test_connections_that_have_begun_are_kept(
    family: socket.AddressFamily, tmp_path: Path
) -> None:
    listener = socket.socket(family)
    listener.bind(("127.0.0.1", 0) if family == socket.AF_INET else str(tmp_path / "s"))
    listener.listen(512)
    client = socket.socket(family)
    client.connect(listener.getsockname())
    assert drop_handshakes(listener) is (family == socket.AF_INET)
    served, _ = listener.accept()
    listener.close()
    client.sendall(b"asked")
    assert served.recv(5) == b"asked"
    served.sendall(b"answered")
    assert client.recv(8) == b"answered"
    client.close()
    served.close()


async def test_nothing_is_watched_once_it_is_closed_without_descriptors() -> None:
    """A failed accept at the end made it rest, and watch again: a traceback."""
    faults: list[object] = []
    loop = asyncio.get_running_loop()
    loop.set_exception_handler(lambda _, context: faults.append(context))
    acceptor = AdminDependencies(listen(Exhausted), asyncio.Protocol, lambda: 0)
    acceptor.close(takes_rest=True)
    assert acceptor.rests == 1
    passed = loop.create_future()
    # Behind the time for which it rests.
    loop.call_later(0.15, passed.set_result, None)
    await passed
    assert faults == []
