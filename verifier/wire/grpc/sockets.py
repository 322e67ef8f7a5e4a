"""Ends connections of grpcio's server that the HTTP port would not accept (R43).

grpcio accepts connections itself, limits only their total, and shows a peer only with a
call. So a peer that is not trusted, or that leaks connections, could hold all of them.
Every second this looks at the sockets of the process. New ones at the port's address
are admitted as on the HTTP port, or shut down: grpcio reads the end, and closes.
`filters` keeps strangers out before; where the system has no filters, this ends them.
"""

from __future__ import annotations

import contextlib
import os
import socket
import stat
from collections.abc import Iterator, Sequence
from typing import Any, Final

from shared.serving.workers.places import CrowdedError
from verifier.wire.connections import Admission, UntrustedPeerError
from verifier.wire.grpc.filters import attach_filter

_DIRECTORY: Final = "/proc/self/fd"
_FAMILIES: Final = (socket.AF_INET, socket.AF_INET6)
#: A peer's address as `getpeername` has it.
_Name = tuple[Any, ...]


class SocketWatch:
    """Admits the connections at one TCP port of this process, and ends the others.

    Args:
        port: the port's number. No other socket of the process has it.
        admission: decides and counts.
    """

    def __init__(self, port: int, admission: Admission) -> None:
        self._port = port
        self._admission = admission
        #: the counted peer of each connection that was admitted
        self._admitted: dict[_Name, str] = {}

    def sweep(self, tick: float) -> None:
        """End the new connections that are not admitted.

        It reads every descriptor of the process, so call it outside of the event loop.

        Args:
            tick: monotonic seconds.
        """
        present = dict(self._list_connections())
        for name in self._admitted.keys() - present.keys():
            self._admission.release(self._admitted.pop(name))
        for name in present.keys() - self._admitted.keys():
            with contextlib.suppress(OSError), _open(present[name]) as connection:
                # grpcio's threads may have closed it, and opened another one.
                if _is_at(connection, self._port) and connection.getpeername() == name:
                    self._admit(name, connection, tick)

    def _admit(self, name: _Name, connection: socket.socket, tick: float) -> None:
        try:
            self._admitted[name] = self._admission.admit(_Transport(connection), tick)
        except (UntrustedPeerError, CrowdedError):
            # A `close` would end only this copy of the descriptor.
            connection.shutdown(socket.SHUT_RDWR)

    def _list_connections(self) -> Iterator[tuple[_Name, int]]:
        """Yield peer and descriptor of each connection at the port."""
        for number, connection in _list_sockets(self._port):
            # A listener has no peer.
            with contextlib.suppress(OSError):
                yield connection.getpeername(), number


class _Transport:
    """What `Admission` reads of a connection."""

    def __init__(self, connection: socket.socket) -> None:
        self._connection = connection

    def get_extra_info(self, name: str, default: Any = None) -> Any:
        """Return the socket, or the peer's address."""
        if name == "socket":
            return self._connection
        return self._connection.getpeername() if name == "peername" else default


def filter_listeners(port: int, networks: Sequence[str]) -> None:
    """Keep peers of other networks from connecting at a TCP port of this process.

    Raises:
        OSError: the system has no such filters, or there are too many networks.
    """
    for _, listener in _list_sockets(port):
        if listener.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN):
            attach_filter(listener, networks)


def _list_sockets(port: int) -> Iterator[tuple[int, socket.socket]]:
    """Yield each descriptor at a TCP port, and a copy that is closed afterwards."""
    for entry in os.listdir(_DIRECTORY):
        number = int(entry)
        try:
            copy = _open(number) if stat.S_ISSOCK(os.fstat(number).st_mode) else None
        except OSError:
            # It was closed meanwhile.
            continue
        if copy is not None:
            with copy:
                if _is_at(copy, port):
                    yield number, copy


def _is_at(copy: socket.socket, port: int) -> bool:
    return copy.family in _FAMILIES and copy.getsockname()[1] == port


def _open(number: int) -> socket.socket:
    """Return a copy of a descriptor as a socket.

    It stays the same connection, even if grpcio closes its own meanwhile.

    Raises:
        OSError: there is no such descriptor, or no free one.
    """
    copy = os.dup(number)
    try:
        return socket.socket(fileno=copy)
    except OSError:
        os.close(copy)
        raise
