"""Addresses in settings: where to listen, and which peers to trust.

Each function takes the text of a setting and raises `ValueError` with a sentence for
the operator: the fault and the correct form. The text itself is repeated only where it
looks like an address, because a value in the wrong setting may be a secret (R35).
"""

from __future__ import annotations

import os
import posixpath
import re
from collections.abc import Collection
from ipaddress import (
    IPv4Address,
    IPv4Network,
    IPv6Address,
    IPv6Network,
    ip_interface,
    ip_network,
)
from typing import Final, NamedTuple

MAX_PORT: Final = 65_535
#: `sun_path` has 108 bytes on Linux, the last of which is zero (unix(7)).
_MAX_SOCKET_PATH: Final = 107
#: The prefix of the widest private networks: 10.0.0.0/8, fc00::/7.
_WIDEST: Final = {4: 8, 6: 7}

_BIND: Final = re.compile(r"(?:\[([^\[\]]*)\]|([^:\[\]/]+)):([0-9]{1,5})")
_PORT: Final = re.compile(r"[0-9]{1,5}")
#: A label of a host name (RFC 1123), or one with `_`, as docker's and Kubernetes'
#: names.
_LABEL: Final = re.compile(r"[A-Za-z0-9_](?:[A-Za-z0-9_-]{0,61}[A-Za-z0-9_])?")
#: The name of an interface after `%` (RFC 4007, section 11).
_ZONE: Final = re.compile(r"[A-Za-z0-9_.-]{1,15}")
#: The characters of an address, and a run of characters as long as a secret's.
_ADDRESS_CHARACTERS: Final = re.compile(r"[A-Za-z0-9._:/\[\]%*-]{0,120}")
_LIKE_A_SECRET: Final = re.compile(r"[A-Za-z0-9_-]{20}")


class TcpAddress(NamedTuple):
    """A host and a port; an IPv6 host has no brackets here."""

    host: str
    port: int


class UnixAddress(NamedTuple):
    """The absolute path of a unix socket."""

    path: str


Address = TcpAddress | UnixAddress


def parse_bind(value: str) -> Address:
    """Return the address to listen on that `HOST:PORT` or `unix:/PATH` names.

    An IPv6 host is in brackets and may name its interface (`[fe80::1%eth0]`). An
    IPv4-mapped address becomes the IPv4 address.

    Raises:
        ValueError: for anything else.
    """
    if value.startswith("unix:"):
        return UnixAddress(_parse_socket_path(value))
    if not value.isascii():
        raise ValueError("must be ASCII; write the host's xn-- form")
    match = _BIND.fullmatch(value)
    if match is None:
        raise ValueError(_explain_bind(value))
    v6, name, port = match.groups()
    if not 1 <= int(port) <= MAX_PORT:
        raise ValueError(f"{_quote(value)} has no port from 1 to {MAX_PORT}")
    if v6 is not None:
        return TcpAddress(parse_ipv6(v6), int(port))
    if name == "*":
        raise ValueError(_explain_bind(value))
    return TcpAddress(parse_host(name), int(port))


def check_bind(value: str) -> str:
    """Return an address to listen on, `HOST:PORT` or `unix:/PATH`, as it is.

    Raises:
        ValueError: for anything else.
    """
    parse_bind(value)
    return value


def check_binds_differ(
    prefix: str,
    bind: str,
    other_bind: str,
    names: tuple[str, str] = ("BIND", "ADMIN_BIND"),
) -> None:
    """Refuse two addresses to listen on that cannot both be opened.

    Args:
        prefix: of the program's settings.
        bind: the one address.
        other_bind: the other one, which the message asks to change.
        names: of both settings, without the prefix.

    Raises:
        ValueError: naming both settings.
    """
    one, other = parse_bind(bind), parse_bind(other_bind)
    if isinstance(one, TcpAddress) and isinstance(other, TcpAddress):
        is_taken = one.port == other.port and _share_an_address(one.host, other.host)
    else:
        is_taken = one == other
    if is_taken:
        raise ValueError(
            f"{prefix}{names[1]}: takes the address of {prefix}{names[0]}; choose "
            "another port or path"
        )


def read_networks(value: str, *, words: Collection[str] = ()) -> tuple[str, ...]:
    """Return the addresses and networks of a list with commas.

    A network of IPv4 addresses mapped into IPv6 becomes one of IPv4: peers are compared
    in that form.

    Args:
        value: the list; blanks around an entry do not matter.
        words: further entries that are accepted and returned unchanged.

    Raises:
        ValueError: for anything else, and for a network wider than any private one
            (R1).
    """
    entries = (entry.strip() for entry in value.split(","))
    return tuple(
        entry if entry in words else _read_network(entry) for entry in entries if entry
    )


def _parse_socket_path(value: str) -> str:
    path = value.removeprefix("unix:")
    if path.startswith("///"):  # as in a URL
        path = path[2:]
    if not path.startswith("/") or path.startswith("//"):
        raise ValueError(f"{_quote(value)} is not an absolute path; write unix:/PATH")
    if path.endswith("/"):
        raise ValueError(f"{_quote(value)} is a directory; write the path of a socket")
    path = posixpath.normpath(path)
    length = len(os.fsencode(path))
    if length > _MAX_SOCKET_PATH:
        raise ValueError(
            f"the path has {length} bytes, and a socket's has at most "
            f"{_MAX_SOCKET_PATH}; choose a shorter one"
        )
    return path


def _explain_bind(value: str) -> str:
    host, _, port = value.rpartition(":")
    shown = _quote(value)
    if "://" in value:
        rest = value.partition("://")[2].rstrip("/")
        return f"{shown} is a URL; write {_plain(rest, 'HOST:PORT')}"
    if _PORT.fullmatch(port) and _is_ipv6(host):
        return f"{shown} is not HOST:PORT; write [{host}]:{port}"
    bare = value[1:-1] if value.startswith("[") and value.endswith("]") else value
    if _is_ipv6(bare):
        return f"{shown} has no port; write [{bare}]:PORT"
    if _PORT.fullmatch(port) and host in {"", "*"}:
        return (
            f"{shown} has no host; write 127.0.0.1:{port}, or [::]:{port} for every "
            "address"
        )
    return f"{shown} is not HOST:PORT or unix:/PATH"


def parse_host(name: str) -> str:
    """Return a host name or an IPv4 address unchanged.

    Raises:
        ValueError: for anything else, also for `127.1` and `0`, which some programs
            read as addresses.
    """
    labels = name.removesuffix(".").split(".")
    if all(label.isdecimal() for label in labels):
        try:
            return str(IPv4Address(name))
        except ValueError:
            raise ValueError(
                f"{_quote(name)} is not an IPv4 address; write four numbers"
            ) from None
    if len(name) > 253 or not all(map(_LABEL.fullmatch, labels)):
        raise ValueError(f"{_quote(name)} is not a host name")
    return name


def parse_ipv6(text: str) -> str:
    """Return an IPv6 address, which may name its interface, in its shortest form.

    An IPv4-mapped address becomes the IPv4 address.

    Raises:
        ValueError: for anything else.
    """
    _, percent, zone = text.partition("%")
    if not _is_ipv6(text) or (percent and not _ZONE.fullmatch(zone)):
        raise ValueError(f"{_quote(text)} is not an IPv6 address")
    address = IPv6Address(text)
    return str(address.ipv4_mapped or address)


def _is_ipv6(text: str) -> bool:
    try:
        IPv6Address(text)
    except ValueError:
        return False
    return True


def _share_an_address(one: str, other: str) -> bool:
    hosts = {
        "127.0.0.1" if h.lower() == "localhost" else h.lower() for h in (one, other)
    }
    if len(hosts) == 1 or "::" in hosts:  # which is dual-stack, see `listening.py`
        return True
    return "0.0.0.0" in hosts and not any(":" in host for host in hosts)  # noqa: S104


def _read_network(entry: str) -> str:
    if "%" in entry:
        raise ValueError(_NETWORKS_RULE)
    try:
        network = unmap_network(ip_network(entry))
    except ValueError:
        raise ValueError(_explain_network(entry)) from None
    if network.prefixlen < _WIDEST[network.version]:
        raise ValueError("must not be everybody: name your gateways")
    if not entry.lower().startswith("::ffff:"):
        return entry
    return str(network) if "/" in entry else str(network.network_address)


_NETWORKS_RULE: Final = (
    "must be addresses or networks such as 10.1.2.3 or 10.1.2.0/24, with commas between "
    "them"
)


def _explain_network(entry: str) -> str:
    try:
        interface = ip_interface(entry)
    except ValueError:
        return _NETWORKS_RULE
    network = unmap_network(interface.network)
    address = unmap(interface.ip)
    return (
        f"must name the first address of a network: write {network}, or {address} for "
        "one address"
    )


def unmap_network(network: IPv4Network | IPv6Network) -> IPv4Network | IPv6Network:
    """Return the IPv4 network that an IPv6 one maps, or the network as it is."""
    mapped = unmap(network.network_address)
    if mapped.version == network.version or network.prefixlen < 96:
        return network
    return ip_network(f"{mapped}/{network.prefixlen - 96}")


def unmap(address: IPv4Address | IPv6Address) -> IPv4Address | IPv6Address:
    """Return the IPv4 address that an IPv6 address maps, or the address as it is."""
    mapped = address.ipv4_mapped if isinstance(address, IPv6Address) else None
    return mapped or address


def _quote(value: str) -> str:
    return repr(value) if _may_be_shown(value) else "it"


def _plain(value: str, otherwise: str) -> str:
    return value if value and _may_be_shown(value) else otherwise


def _may_be_shown(value: str) -> bool:
    is_path = value.startswith("unix:/")
    return bool(_ADDRESS_CHARACTERS.fullmatch(value)) and (
        is_path or not _LIKE_A_SECRET.search(value)
    )
