"""Refuses requests of browsers where the operators' port does more than show a page.

Any site that an operator visits can let the browser post to the operators' port on
loopback, and with DNS rebinding the site could read the answer, too: its own name then
points to 127.0.0.1. A program like curl sends neither `Origin` nor `Sec-Fetch-Site`,
and names the host it connects to.
"""

from __future__ import annotations

import re
from ipaddress import ip_address
from typing import Final

from starlette.responses import JSONResponse
from starlette.types import ASGIApp, Receive, Scope, Send

from shared.configuration.addresses import UnixAddress, parse_bind

#: These change nothing, and explain nothing. Prometheus and probes send them with any
#: Host.
_SAFE_METHODS: Final = frozenset({"GET", "HEAD"})
#: RFC 9110, section 7.2: a name or an address, an IPv6 address in brackets, and a port.
_HOST: Final = re.compile(rb"(?:\[([0-9A-Fa-f:.]+)\]|([^:\[\]]+))(?::[0-9]*)?")
_ADVICE: Final = "Use a program that is no browser, such as curl."


class BrowserGuard:
    """Answers 403 to requests that a browser may have sent, but for GET and HEAD.

    Args:
        app: the operators' application.
        host: of the address that the port listens on; empty for a unix socket, which
            no browser reaches.
    """

    def __init__(self, app: ASGIApp, host: str) -> None:
        self._app = app
        self._host = host

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass the request on, or answer 403 and say why."""
        if scope["type"] == "http" and scope["method"] not in _SAFE_METHODS:
            detail = find_browser(scope["headers"], self._host)
            if detail:
                body = {"type": "about:blank", "status": 403, "detail": detail}
                media_type = "application/problem+json"
                answer = JSONResponse(body, 403, media_type=media_type)
                await answer(scope, receive, send)
                return
        await self._app(scope, receive, send)


def find_browser(headers: list[tuple[bytes, bytes]], own_host: str) -> str:
    """Return why a browser may have sent this request; empty when none can have.

    Args:
        headers: names in lower case.
        own_host: as for `BrowserGuard`.
    """
    hosts = [value for name, value in headers if name == b"host"]
    for name, value in headers:
        if name == b"origin":
            return f"The request has an Origin header, as browsers send it. {_ADVICE}"
        if name == b"sec-fetch-site" and value != b"none":
            return f"The request has the header Sec-Fetch-Site. {_ADVICE}"
    if own_host and (len(hosts) != 1 or not _is_own(hosts[0], own_host)):
        return (
            "The Host header must be an IP address, localhost or the host of "
            "VERIFIER_ADMIN_BIND: with another name a web page could ask through an "
            "operator's browser. Ask by the IP address."
        )
    return ""


def _is_own(host: bytes, own_host: str) -> bool:
    match = _HOST.fullmatch(host)
    if match is None:
        return False
    address, name = match.groups()
    try:
        text = (address or name).decode("ascii").lower()
    except UnicodeDecodeError:
        return False
    if text in ("localhost", own_host.lower()):
        return True
    # Only an address that is written out; no site can make its name one.
    try:
        return ip_address(text).version == (6 if address else 4)
    except ValueError:
        return False


def admin_host(bind: str) -> str:
    """Return the host of an address to listen on; empty for a unix socket."""
    address = parse_bind(bind)
    return "" if isinstance(address, UnixAddress) else address.host
