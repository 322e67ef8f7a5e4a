"""The caller: the client's address according to trusted proxies (R1, R62).

In `X-Forwarded-For` each hop writes the address of the previous one. It is read from
the right: an entry counts only if a trusted hop wrote it, and the first address that is
not trusted is the caller. If a trusted hop writes something else than an address, the
request is refused: counted as the proxy's own, one attacker's failed logins would slow
down every client behind it.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from functools import lru_cache
from ipaddress import ip_address
from typing import Final

from starlette.requests import Request
from starlette.types import Scope

from issuer.acts import Caller
from issuer.clock import ElapsedClock, elapsed_clock
from issuer.errors import InvalidRequestError
from issuer.http.correlation import current_correlation_id
from issuer.http.forwarded_for import (
    UNIX,
    Hop,
    Unusable,
    UnusableForwardedError,
    find_caller,
    trust_proxies,
    unmap,
)
from shared import log
from shared.claims import is_plain_text

#: Returns the sender of a request.
CallerOf = Callable[[Request], Caller]

HEADER: Final = "X-Forwarded-For"
_MAX_DEVICE_LABEL: Final = 200
_REFUSED: Final = (
    f"{HEADER}: the proxy in front of the issuer sent no usable client address. It must "
    "end in an address such as 203.0.113.7 or [2001:db8::7]:443."
)
#: Represents a peer without an address from the server; not a unix socket (R43).
_UNREADABLE: Final = "unreadable"
_LOG_SECONDS: Final = 60.0
_LOG = logging.getLogger(__name__)


def build_caller_of(
    trusted_proxies: Sequence[str], elapsed: ElapsedClock = elapsed_clock
) -> CallerOf:
    """Return the function that finds the sender of a request.

    It raises `InvalidRequestError` for a request of a trusted peer whose
    `X-Forwarded-For` has no usable caller. A trusted peer without the header is the
    caller.

    Args:
        trusted_proxies: addresses or networks whose `X-Forwarded-For` is trusted;
            `unix` means every peer of our unix socket.
        elapsed: gives the seconds between two log lines.

    Raises:
        ValueError: for an entry that is neither address nor network.
    """
    is_trusted = trust_proxies(trusted_proxies)
    refusals = _RefusalLog(elapsed)

    def caller_of(request: Request) -> Caller:
        found = peer = _read_peer(request.client.host if request.client else "")
        lines = request.headers.getlist(HEADER)
        if lines and is_trusted(peer):
            try:
                found = find_caller(peer, lines, is_trusted)
            except UnusableForwardedError as error:
                refusals.write(peer, error.reason)
                raise InvalidRequestError(_REFUSED) from None
        return Caller(
            address=str(found),
            device_label=_read_device_label(request),
            correlation_id=current_correlation_id(),
        )

    return caller_of


def build_client_of(trusted_proxies: Sequence[str]) -> Callable[[Scope], str]:
    """Return the function that names the client of an ASGI scope in the access log.

    It never raises: for a header that cannot be used it names the peer. The line about
    that header is written by `build_caller_of`.

    Args:
        trusted_proxies: as in `build_caller_of`.
    """
    is_trusted = trust_proxies(trusted_proxies)

    def client_of(scope: Scope) -> str:
        request = Request(scope)
        peer = _read_peer(request.client.host if request.client else "")
        lines = request.headers.getlist(HEADER)
        if not lines or not is_trusted(peer):
            return str(peer)
        try:
            return str(find_caller(peer, lines, is_trusted))
        except UnusableForwardedError:
            return str(peer)

    return client_of


def caller_of(request: Request) -> Caller:
    """Return who sent a request, by the application's trusted proxies.

    No dependency: a body or a token that is refused is refused before a bad header.

    Raises:
        InvalidRequestError: when a trusted peer names no caller.
    """
    found: Caller = request.app.state.caller_of(request)
    return found


class _RefusalLog:
    """Logs refused headers at most once a minute: a flood must not fill the log."""

    def __init__(self, elapsed: ElapsedClock) -> None:
        self._elapsed = elapsed
        self._next = float("-inf")
        self._unlogged = 0

    def write(self, peer: Hop, reason: Unusable) -> None:
        """Log the proxy and the reason without the header, or only count."""
        now = self._elapsed()
        if now < self._next:
            self._unlogged += 1
            return
        log.event(
            _LOG,
            logging.WARNING,
            "forwarded.unusable",
            header=HEADER,
            peer=str(peer),
            reason=reason,
            unlogged=self._unlogged,
        )
        self._next = now + _LOG_SECONDS
        self._unlogged = 0


@lru_cache(maxsize=1_024)
def _read_peer(host: str) -> Hop:
    """Read a socket's peer; cached, because the same few texts repeat."""
    if not host:
        return UNIX
    try:
        return unmap(ip_address(host))
    except ValueError:
        return _UNREADABLE


def _read_device_label(request: Request) -> str:
    label = request.headers.get("User-Agent", "")[:_MAX_DEVICE_LABEL]
    return label if is_plain_text(label) else ""
