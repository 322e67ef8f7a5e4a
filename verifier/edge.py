"""What every connection of one worker shares: the gate, who may ask, how many."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from functools import lru_cache
from ipaddress import IPv6Address, ip_address, ip_network
from typing import Protocol

from verifier.gate import Gate


class Connection(Protocol):
    """An open connection with a time by which something must happen."""

    deadline: float

    def expire(self) -> None:
        """End it."""


@dataclass(slots=True)
class Edge:
    """The wire side of one worker.

    Attributes:
        gate: answers check requests.
        is_trusted: tells whether a peer's address is a gateway of ours (R1).
        max_connections: more are answered 503 and closed.
        tick: monotonic seconds, moved by `sweep`: a clock that costs nothing to read.
        connections: the open connections.
    """

    gate: Gate
    is_trusted: Callable[[str | None], bool]
    max_connections: int
    tick: float
    connections: set[Connection] = field(default_factory=set)

    def sweep(self, monotonic: float) -> None:
        """Move the tick and end every connection whose time is up."""
        self.tick = monotonic
        for connection in list(self.connections):
            if connection.deadline < monotonic:
                connection.expire()


def trust_peers(networks: Iterable[str]) -> Callable[[str | None], bool]:
    """Return a function that tells whether a peer's address is a gateway of ours (R1).

    A peer without an address came through a unix socket, whose file's permissions are
    its check.
    """
    trusted = [ip_network(network) for network in networks]

    @lru_cache(maxsize=4_096)
    def is_trusted(host: str | None) -> bool:
        if host is None:
            return True
        address = ip_address(host)
        if isinstance(address, IPv6Address) and address.ipv4_mapped:
            address = address.ipv4_mapped
        return any(address in network for network in trusted)

    return is_trusted
