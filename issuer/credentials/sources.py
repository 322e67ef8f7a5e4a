"""Networks of logins. Pure.

One subscriber has a whole IPv6 /56 and can use any of its addresses, and neighbours
share an IPv4 /24. With smaller networks an attacker would have many counters.
"""

from __future__ import annotations

from collections.abc import Callable
from ipaddress import ip_address, ip_network
from typing import Final

from issuer.http.forwarded_for import Hop

_PREFIX_BITS: Final = {4: 24, 6: 56}


def find_source(address: str) -> str:
    """Return the network of a caller's address, such as `192.0.2.0/24`.

    Args:
        address: as in `Caller.address`; words (`unix`, `local`) are returned unchanged.
    """
    try:
        bits = _PREFIX_BITS[ip_address(address).version]
    except ValueError:
        return address
    # An IPv6 address may have a zone, a network may not.
    plain = address.partition("%")[0]
    return str(ip_network(f"{plain}/{bits}", strict=False))


def tells_callers_apart(address: str, is_proxy: Callable[[Hop], bool]) -> bool:
    """Return whether failures from this address belong to one client.

    Loopback and our unix socket mean a gateway that is missing in
    `ISSUER_TRUSTED_PROXIES`; a listed gateway's own address means that it sends no
    `X-Forwarded-For`. In both cases all clients have this address (R62).

    Args:
        address: as in `Caller.address`.
        is_proxy: returns whether an address is a listed gateway.
    """
    try:
        parsed = ip_address(address)
    except ValueError:
        return False
    return not (parsed.is_loopback or is_proxy(parsed))
