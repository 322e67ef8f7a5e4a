"""Limits on the number of connections, in all and per peer (R43, R44)."""

from __future__ import annotations

import socket
from collections import Counter
from ipaddress import IPv6Address, ip_address
from typing import Any, Final, Protocol

#: The name under which all peers of a unix socket are counted.
UNIX_PEER: Final = "unix"


class Asks(Protocol):
    """The part of a transport that is used here."""

    def get_extra_info(self, name: str, default: Any = None) -> Any:
        """Return the socket's property of this name; see `asyncio.BaseTransport`."""


class UnnamedPeerError(Exception):
    """The peer's address cannot be read."""


class CrowdedError(Exception):
    """A limit is reached; the text is one word that names it."""


class Places:
    """Counts connections by peer.

    Args:
        most: connections in all.
        share_for_others: one peer gets all but this share.
    """

    def __init__(self, most: int, share_for_others: int) -> None:
        self._most = most
        self._most_of_a_peer = most - most // share_for_others
        self._held: Counter[str] = Counter()
        self._total = 0

    def take(self, peer: str) -> None:
        """Count a connection, until `release`.

        Raises:
            CrowdedError: a limit is reached.
        """
        if self._total >= self._most:
            raise CrowdedError("full")
        if self._held[peer] >= self._most_of_a_peer:
            raise CrowdedError("peer_full")
        self._total += 1
        self._held[peer] += 1

    def release(self, peer: str) -> None:
        """Stop counting a connection."""
        self._total -= 1
        self._held[peer] -= 1
        if not self._held[peer]:
            del self._held[peer]


def read_peer(transport: Asks) -> tuple[str, int]:
    """Return the peer's address and port, or `UNIX_PEER`.

    A unix socket is recognised by its family, not by a missing name: `getpeername` also
    fails when a TCP peer has already gone.

    Raises:
        UnnamedPeerError: the address cannot be read.
    """
    sock = transport.get_extra_info("socket")
    if sock is not None and sock.family == socket.AF_UNIX:
        return UNIX_PEER, 0
    name = transport.get_extra_info("peername")
    if not isinstance(name, tuple) or len(name) < 2:
        raise UnnamedPeerError
    return str(name[0]), int(name[1])


def count_as(host: str) -> str:
    """Return the name that a peer is counted under.

    The addresses of one IPv6 /64 are counted together, because a peer has at least that
    many.
    """
    if host == UNIX_PEER:
        return host
    address = ip_address(host.partition("%")[0])
    if not isinstance(address, IPv6Address):
        return host
    if address.ipv4_mapped:
        return str(address.ipv4_mapped)
    return str(IPv6Address(int(address) >> 64 << 64)) + "/64"
