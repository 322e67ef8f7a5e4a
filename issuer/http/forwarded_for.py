"""Reads `X-Forwarded-For` in the forms of gateways (R62). Pure.

An element is an address (`203.0.113.7`, `2001:db8::7`, `[2001:db8::7]`), with a port
(`203.0.113.7:51234`, `[2001:db8::7]:443`) or without, with the zone of a link-local
address (`fe80::7%eth0`) or without, or `unix:`, nginx's name for a client on a unix
socket. Port and zone are dropped: neither distinguishes clients, and a zone has a
meaning only on the gateway's host.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from enum import StrEnum
from ipaddress import IPv4Address, IPv6Address, ip_network
from typing import Final

from shared.configuration.addresses import unmap_network

#: One sender of a request: its address, or `UNIX` for one without an address.
Hop = IPv4Address | IPv6Address | str

#: Represents a peer on a unix socket.
UNIX: Final = "unix"
_NGINX_UNIX: Final = "unix:"
_MAX_PORT: Final = 65_535
#: An address has 45 characters at most, a zone of Linux 15, of Windows a number.
_MAX_ELEMENT: Final = 128
#: No request passes more of our proxies; they did not write a longer list.
_MAX_HOPS: Final = 50
_ZONE: Final = r"(?:%[0-9A-Za-z._~-]{1,64})?"
_BROADCAST: Final = IPv4Address("255.255.255.255")
_FORM: Final = re.compile(
    rf"(?:(?P<v4>[0-9.]+)|\[(?P<bracketed>[0-9A-Fa-f:.]+){_ZONE}\])"
    r"(?::(?P<port>[0-9]{1,5}))?"
    rf"|(?P<bare>[0-9A-Fa-f:.]+){_ZONE}"
)


class Unusable(StrEnum):
    """The reasons why a header has no usable caller; logged."""

    EMPTY = "empty"
    HIDDEN = "hidden"
    TOO_LONG = "too_long"
    TOO_MANY = "too_many"
    MALFORMED = "malformed"
    NO_SENDER = "no_sender"


class UnusableForwardedError(Exception):
    """A trusted hop wrote an unusable entry; `reason` has the cause."""

    def __init__(self, reason: Unusable) -> None:
        self.reason = reason
        super().__init__(reason)


def find_caller(
    peer: Hop, lines: Sequence[str], is_trusted: Callable[[Hop], bool]
) -> Hop:
    """Return the nearest sender that is not trusted, or the farthest trusted one.

    Each hop appends the address of the previous one, so trusted hops wrote only the
    part right of the first address that is not trusted. The rest comes from the caller
    and is not read.

    Args:
        peer: the trusted sender according to this host's kernel.
        lines: the values of all `X-Forwarded-For` lines, in their order.
        is_trusted: returns whether a sender's header is trusted.

    Raises:
        UnusableForwardedError: when a trusted hop wrote something else than an address.
            The last readable hop is a proxy and is not the caller (R5, R62).
    """
    found = peer
    for number, element in enumerate(_from_the_right(lines)):
        if number == _MAX_HOPS:
            raise UnusableForwardedError(Unusable.TOO_MANY)
        found = _read_hop(element)
        if not is_trusted(found):
            break
    return found


def trust_proxies(trusted_proxies: Sequence[str]) -> Callable[[Hop], bool]:
    """Return a function that checks whether a sender is one of our proxies.

    Args:
        trusted_proxies: addresses or networks; `unix` means every peer of our unix
            socket.

    Raises:
        ValueError: for an entry that is neither address nor network.
    """
    trusts_unix = UNIX in trusted_proxies
    # Peers are never in the mapped form.
    networks = [
        unmap_network(ip_network(entry)) for entry in trusted_proxies if entry != UNIX
    ]

    def is_trusted(hop: Hop) -> bool:
        if isinstance(hop, str):
            return trusts_unix and hop == UNIX
        return any(hop in network for network in networks)

    return is_trusted


def unmap(address: IPv4Address | IPv6Address) -> IPv4Address | IPv6Address:
    """Return one form for each host: without zone, and IPv4 for `::ffff:a.b.c.d`."""
    if isinstance(address, IPv4Address):
        return address
    return address.ipv4_mapped or IPv6Address(int(address))


def _from_the_right(lines: Sequence[str]) -> Iterator[str]:
    for line in reversed(lines):
        rest, comma = line, ","
        while comma:
            rest, comma, element = rest.rpartition(",")
            yield element


def _read_hop(element: str) -> Hop:
    if len(element) > _MAX_ELEMENT:
        raise UnusableForwardedError(Unusable.TOO_LONG)
    text = element.strip(" \t")
    if not text:
        raise UnusableForwardedError(Unusable.EMPTY)
    if text == _NGINX_UNIX:
        return UNIX
    if text.startswith("_") or text.lower() == "unknown":  # RFC 7239, section 6
        raise UnusableForwardedError(Unusable.HIDDEN)
    form = _FORM.fullmatch(text)
    if form is None or int(form["port"] or 0) > _MAX_PORT:
        raise UnusableForwardedError(Unusable.MALFORMED)
    try:
        address = unmap(
            IPv4Address(form["v4"])
            if form["v4"]
            else IPv6Address(form["bracketed"] or form["bare"])
        )
    except ValueError:
        raise UnusableForwardedError(Unusable.MALFORMED) from None
    if address.is_unspecified or address.is_multicast or address == _BROADCAST:
        raise UnusableForwardedError(Unusable.NO_SENDER)
    return address
