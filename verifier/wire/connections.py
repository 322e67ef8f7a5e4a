"""Admission: which connections are accepted, decided once, at accept (R43)."""

from __future__ import annotations

import logging
import socket
from collections import Counter
from collections.abc import Callable, Iterable
from functools import lru_cache
from ipaddress import ip_address, ip_network
from typing import Any, Final, Protocol

from shared.configuration.addresses import unmap
from shared.log import event
from shared.serving.workers.places import UNIX_PEER, CrowdedError, Places
from verifier.wire.budgets import LOG_PERIOD, SHARE_FOR_OTHERS

_LOG: Final = logging.getLogger(__name__)
#: Why a connection is refused: the label of the metric.
REFUSALS: Final = ("untrusted", "unnamed", "peer_full", "full")


class TransportInfo(Protocol):
    """The part of a transport that admission reads."""

    def get_extra_info(self, name: str, default: Any = None) -> Any:
        """Return the information with this name."""


class UntrustedPeerError(Exception):
    """The peer is not a gateway of ours, or its address cannot be read (R1)."""


class Admission:
    """Counts connections by peer, and decides which are accepted.

    Args:
        is_trusted: returns whether an address is a gateway of ours.
        most: connections of all peers together.

    Attributes:
        refused: refused connections by reason.
    """

    def __init__(self, is_trusted: Callable[[str], bool], most: int) -> None:
        self._is_trusted = is_trusted
        self._places = Places(most, SHARE_FOR_OTHERS)
        self._next_line_at = 0.0
        self.refused: Counter[str] = Counter(dict.fromkeys(REFUSALS, 0))

    def admit(self, transport: TransportInfo, tick: float) -> str:
        """Accept a connection; return the peer to pass to `release` later.

        Args:
            transport: the connection's.
            tick: monotonic seconds.

        Raises:
            UntrustedPeerError: the connection must be aborted.
            CrowdedError: the connection must be answered 503 and closed.
        """
        peer = read_peer(transport)
        if peer != UNIX_PEER and not (peer and self._is_trusted(peer)):
            self._refuse("untrusted" if peer else "unnamed", peer, tick)
            raise UntrustedPeerError
        try:
            self._places.take(peer)
        except CrowdedError as error:
            self._refuse(str(error), peer, tick)
            raise
        return peer

    def release(self, peer: str) -> None:
        """Uncount a connection that `admit` accepted."""
        self._places.release(peer)

    def _refuse(self, reason: str, peer: str, tick: float) -> None:
        self.refused[reason] += 1
        if tick >= self._next_line_at:
            self._next_line_at = tick + LOG_PERIOD
            event(
                _LOG,
                logging.WARNING,
                "wire.connection_refused",
                reason=reason,
                peer=peer,
                refused=self.refused.total(),
            )


def read_peer(transport: TransportInfo) -> str:
    """Return the peer's address, or `UNIX_PEER`; empty when it cannot be read.

    A unix socket is known by its family. A missing peer name does not mean a unix
    socket: `getpeername` also fails when a TCP peer has gone already.
    """
    sock = transport.get_extra_info("socket")
    if sock is not None and sock.family == socket.AF_UNIX:
        return UNIX_PEER
    name = transport.get_extra_info("peername")
    if not isinstance(name, tuple) or not name or not isinstance(name[0], str):
        return ""
    try:
        return str(unmap(ip_address(name[0])))
    except ValueError:
        return ""


def trust_peers(networks: Iterable[str]) -> Callable[[str], bool]:
    """Return a function that returns whether an address is a gateway of ours (R1)."""
    trusted = [ip_network(network) for network in networks]

    @lru_cache(maxsize=4_096)
    def is_trusted(host: str) -> bool:
        address = unmap(ip_address(host))
        return any(address in network for network in trusted)

    return is_trusted
