"""The variables that Kubernetes puts into every container for each Service (R56).

A Service named `issuer` or `verifier-admin` creates variables that begin with our
prefix. They are not settings. Exactly the documented forms are recognised here, by name
and value, so that a misspelt setting is still refused.

https://kubernetes.io/docs/concepts/services-networking/service/#environment-variables
"""

from __future__ import annotations

import re
from ipaddress import ip_address
from typing import Final

#: A Service's name and a port's, upper case, `-` written as `_`.
_NAME: Final = r"[A-Z0-9](?:[A-Z0-9_]*[A-Z0-9])?"
_HOST: Final = re.compile(rf"{_NAME}_SERVICE_HOST")
_PORT: Final = re.compile(rf"{_NAME}_SERVICE_PORT(?:_{_NAME})?")
_URL: Final = re.compile(rf"{_NAME}_PORT")
_ONE_PORT: Final = re.compile(
    rf"{_NAME}_PORT_(?P<port>[0-9]{{1,5}})_(?P<protocol>TCP|UDP|SCTP)"
    r"(?P<part>_PROTO|_PORT|_ADDR)?"
)


def is_service_link(name: str, value: str) -> bool:
    """Return whether Kubernetes makes a variable like this for a Service."""
    if _HOST.fullmatch(name):
        return _is_address(value)
    one_port = _ONE_PORT.fullmatch(name)
    if one_port:
        port, protocol = one_port["port"], one_port["protocol"].lower()
        match one_port["part"]:
            case "_PROTO":
                return value == protocol
            case "_PORT":
                return value == port
            case "_ADDR":
                return _is_address(value)
            case _:
                return _is_endpoint(value, {protocol}, port)
    if _PORT.fullmatch(name):
        return _is_port(value)
    if _URL.fullmatch(name):
        return _is_endpoint(value, {"tcp", "udp", "sctp"}, None)
    return False


def _is_endpoint(value: str, protocols: set[str], port: str | None) -> bool:
    """Return whether a value is `tcp://ADDRESS:PORT`, with IPv6 in brackets."""
    scheme, _, place = value.partition("://")
    host, _, number = place.rpartition(":")
    is_v6 = host.startswith("[") and host.endswith("]")
    address = host[1:-1] if is_v6 else host
    return (
        scheme in protocols
        and _is_address(address)
        and is_v6 == (":" in address)
        and _is_port(number)
        and port in {None, number}
    )


def _is_address(value: str) -> bool:
    try:
        ip_address(value)
    except ValueError:
        return False
    return True


def _is_port(value: str) -> bool:
    return bool(re.fullmatch(r"[1-9][0-9]{0,4}", value)) and int(value) <= 65_535
