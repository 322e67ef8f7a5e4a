"""Reads the origins whose web pages may call the issuer (R37). Pure.

A browser sends an origin in one form (RFC 6454, section 6.2): lower case, without the
default port, a path or a slash at the end. An entry in another form would never match,
so the start refuses it.
"""

from __future__ import annotations

import re
from ipaddress import IPv4Address, IPv6Address
from typing import Final

from shared.configuration.addresses import parse_host

_FORM: Final = re.compile(
    r"(https?)://([a-z0-9._-]+|\[[0-9a-f:]+\])(?::([1-9][0-9]*))?"
)
_NUMBER: Final = re.compile(r"[0-9]+|0x[0-9a-f]*")
_DEFAULT_PORTS: Final = {"https": "443", "http": "80"}
_LOOPBACK: Final = {"localhost", "127.0.0.1", "[::1]"}
_MAX_PORT: Final = 65_535


def read_origins(value: str | tuple[str, ...]) -> tuple[str, ...]:
    """Return the origins in a comma-separated list, or in one that is split already.

    Raises:
        ValueError: with the number of the entry and its fault.
    """
    parts = value.split(",") if isinstance(value, str) else value
    entries = [part.strip() for part in parts if part.strip()]
    for number, entry in enumerate(entries, 1):
        problem = _find_problem(entry)
        if problem:
            raise ValueError(f"entry {number}: {problem}")
    return tuple(dict.fromkeys(entries))


def _find_problem(entry: str) -> str:
    """Return the fault of an entry; empty when it is acceptable."""
    if "*" in entry:
        return "a wildcard would admit pages of others; list each origin"
    if entry == "null":
        return "every sandboxed page and local file has the origin null"
    form = _FORM.fullmatch(entry)
    if form is None:
        return (
            "write an origin as a browser sends it, such as https://app.example.com or "
            "http://localhost:3000: lower case, no path, no slash at the end"
        )
    scheme, host, port = form.groups()
    if scheme == "http" and host not in _LOOPBACK:
        return "http is accepted from loopback only; tokens would travel unencrypted"
    if port == _DEFAULT_PORTS[scheme]:
        return f"leave out :{port}; browsers do not send the default port"
    if port and int(port) > _MAX_PORT:
        return "the port is larger than 65535"
    if not host.startswith("[") and not _is_host(host):
        return "the host is none that a browser sends"
    if host.startswith("[") and not _is_shortest_ipv6(host[1:-1]):
        return "write the IPv6 address in its shortest form, as browsers do"
    return ""


def _is_host(host: str) -> bool:
    # For a browser, a name whose last label is a number is an IPv4 address, which it
    # sends as four decimal numbers (URL Standard, "host parsing").
    if _NUMBER.fullmatch(host.rpartition(".")[2]):
        try:
            return str(IPv4Address(host)) == host
        except ValueError:
            return False
    try:
        parse_host(host)
    except ValueError:
        return False
    return True


def _is_shortest_ipv6(text: str) -> bool:
    try:
        return str(IPv6Address(text)) == text
    except ValueError:
        return False
