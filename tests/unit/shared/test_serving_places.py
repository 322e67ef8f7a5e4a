"""Places for connections, and the peer they are counted for (R43, R44)."""

from __future__ import annotations

import asyncio
import socket
from typing import Any

import pytest

from shared.serving.connection import Connection
from shared.serving.limits import Limits
from shared.serving.port import Port
from shared.serving.states import State
from shared.serving.workers.places import (
    CrowdedError,
    Places,
    UnnamedPeerError,
    count_as,
    read_peer,
)


class FakeTransport(asyncio.Transport):
    """A transport with a peer of this name."""

    def __init__(self, peername: Any, sock: socket.socket | None = None) -> None:
        super().__init__({"peername": peername, "socket": sock})
        self.is_aborted = False

    def set_write_buffer_limits(
        self, high: int | None = None, low: int | None = None
    ) -> None:
        pass

    def abort(self) -> None:
        self.is_aborted = True


def test_unix_socket_is_recognized_by_its_family_and_a_missing_name_is_refused() -> (
    None
):
    with socket.socket(socket.AF_UNIX) as sock:
        assert read_peer(FakeTransport("", sock)) == ("unix", 0)
    assert read_peer(FakeTransport(("192.0.2.1", 5))) == ("192.0.2.1", 5)
    assert read_peer(FakeTransport(("2001:db8::1", 5, 0, 0))) == ("2001:db8::1", 5)
    for name in (None, "", ()):
        with pytest.raises(UnnamedPeerError):
            read_peer(FakeTransport(name))


async def test_peer_without_a_name_is_aborted_and_takes_no_place() -> None:
    """R43: `getpeername` fails where a TCP peer has gone: that is no unix socket."""
    port = Port("test", Limits(connections=1))

    def make_requests(_connection: Connection) -> Any:
        raise AssertionError("it is not served")

    connection = Connection(port, make_requests, asyncio.get_running_loop())
    transport = FakeTransport(None)
    connection.connection_made(transport)
    assert transport.is_aborted
    assert connection.state is State.ENDED
    assert port.refused == {"unnamed": 1}
    port.places.take("192.0.2.1")


@pytest.mark.parametrize(
    ("host", "counted"),
    [
        ("unix", "unix"),
        ("192.0.2.1", "192.0.2.1"),
        ("::ffff:192.0.2.1", "192.0.2.1"),
        ("2001:db8:0:1:2:3:4:5", "2001:db8:0:1::/64"),
        ("fe80::1%eth0", "fe80::/64"),
    ],
)
def test_peers_are_counted_by_address_or_network(host: str, counted: str) -> None:
    assert count_as(host) == counted


def test_share_for_others() -> None:
    places = Places(10, share_for_others=10)
    for _ in range(9):
        places.take("a")
    with pytest.raises(CrowdedError, match="peer_full"):
        places.take("a")
    places.take("b")
    with pytest.raises(CrowdedError, match=r"^full$"):
        places.take("c")
    places.release("a")
    places.take("c")
