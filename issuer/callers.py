"""Who is calling: the client's address as far as trusted peers vouch for it (R1).

`X-Forwarded-For` is what each hop claims the one before it was. Read from the right, an
entry counts only while the hop that wrote it is trusted; the first address that is not
trusted is the caller, and everything left of it is the caller's own invention.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import lru_cache
from ipaddress import (
    IPv4Address,
    IPv4Network,
    IPv6Address,
    IPv6Network,
    ip_address,
    ip_network,
)
from typing import NamedTuple

from starlette.requests import Request

from issuer.acts import Caller
from issuer.correlation import current_correlation_id
from shared.claims import is_plain_text

#: Tells who sent a request.
CallerOf = Callable[[Request], Caller]
_Address = IPv4Address | IPv6Address
_Network = IPv4Network | IPv6Network

_MAX_DEVICE_LABEL = 200
#: Stands for a peer on our unix socket, in answers and in `trusted_proxies`.
UNIX_PEER = "unix"


def build_caller_of(trusted_proxies: Sequence[str]) -> CallerOf:
    """Return the function that tells who sent a request.

    Args:
        trusted_proxies: addresses or networks whose `X-Forwarded-For` is believed;
            `unix` stands for whoever connects to a unix socket of ours.

    Raises:
        ValueError: for an entry that is neither address nor network.
    """
    trusts_unix = UNIX_PEER in trusted_proxies
    networks = [ip_network(entry) for entry in trusted_proxies if entry != UNIX_PEER]

    def caller_of(request: Request) -> Caller:
        peer = _read_peer(request.client.host) if request.client else None
        if peer is None:
            address = UNIX_PEER
            is_trusted = trusts_unix
        else:
            address = peer.text
            is_trusted = _is_within(peer.address, networks)
        if is_trusted:
            hops = ",".join(request.headers.getlist("X-Forwarded-For")).split(",")
            address = _find_caller(address, hops, networks)
        return Caller(
            address=address,
            device_label=_read_device_label(request),
            correlation_id=current_correlation_id(),
        )

    return caller_of


def _find_caller(peer: str, hops: list[str], networks: Sequence[_Network]) -> str:
    """Walk from the nearest hop outwards; stop at the first untrusted or unreadable.

    Behind something unreadable nothing can be believed (requirement R5): the last hop
    that made sense answers for it.
    """
    found = peer
    for hop in reversed(hops):
        address = _read_address(hop.strip())
        if address is None:
            return found
        found = str(address)
        if not _is_within(address, networks):
            return found
    return found


def _read_address(text: str) -> _Address | None:
    try:
        address = ip_address(text)
    except ValueError:
        return None
    # A dual-stack socket shows an IPv4 peer as ::ffff:a.b.c.d: the same peer.
    mapped = address.ipv4_mapped if isinstance(address, IPv6Address) else None
    return mapped or address


class _Peer(NamedTuple):
    address: _Address
    text: str


@lru_cache(maxsize=1_024)
def _read_peer(host: str) -> _Peer | None:
    """Read a socket's peer: short text of the system's, that comes again and again."""
    address = _read_address(host)
    return None if address is None else _Peer(address, str(address))


def _is_within(address: _Address, networks: Sequence[_Network]) -> bool:
    return any(address in network for network in networks)


def _read_device_label(request: Request) -> str:
    label = request.headers.get("User-Agent", "")[:_MAX_DEVICE_LABEL]
    return label if is_plain_text(label) else ""
