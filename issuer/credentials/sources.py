"""Networks that logins come from. Pure.

One subscriber has a whole IPv6 /56 and hops through it for nothing, and neighbours share
an IPv4 /24: below these, counting failures would count one attacker many times over.
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
        address: as in `Caller.address`; what is no address (`unix`, `local`) stands for
            itself.
    """
    try:
        bits = _PREFIX_BITS[ip_address(address).version]
    except ValueError:
        return address
    # An IPv6 address may carry a zone, which a network may not.
    plain = address.partition("%")[0]
    return str(ip_network(f"{plain}/{bits}", strict=False))


def tells_callers_apart(address: str, is_proxy: Callable[[Hop], bool]) -> bool:
    """Tell whether failures from this address can be held against one client.

    Loopback and our unix socket show a gateway that is not listed in
    `ISSUER_TRUSTED_PROXIES`, and a listed gateway's own address shows one that sends no
    `X-Forwarded-For`. All clients are behind either (R62).

    Args:
        address: as in `Caller.address`.
        is_proxy: tells whether an address is that of a listed gateway.
    """
    try:
        parsed = ip_address(address)
    except ValueError:
        return False
    return not (parsed.is_loopback or is_proxy(parsed))
