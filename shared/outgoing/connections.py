"""Kept connections that follow a server's name and the authorities in force (R59).

A connection that is always busy is never opened anew. It would keep an address that the
name no longer has, and authorities that were replaced. So the name is resolved again in
the background, and a pool whose address the name no longer has ends with its last
request. While no resolver answers, the existing connections stay in use.
"""

from __future__ import annotations

import asyncio
import logging
import socket
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from http.cookiejar import CookieJar, DefaultCookiePolicy
from typing import Any, Final, NamedTuple

import httpx

from shared.log import event
from shared.outgoing.authorities import Authorities
from shared.outgoing.bodies import ACCEPT_ENCODING

_LOG: Final = logging.getLogger(__name__)
#: Seconds between two checks of names and authorities. Even with the longest request
#: held at the old address, a new one is used within the minute of R59.
LOOK_EVERY: Final = 10.0
#: Seconds between two checks at least. A request that failed asks for one at once, and
#: many issuers may be away.
_LOOK_AGAIN: Final = 1.0
#: Seconds that a check waits for the addresses of a name.
_RESOLVE_TIME: Final = 5.0
#: Seconds without a request after which the connections to an origin are closed. The
#: OpenID configuration of an issuer may name another address with each answer.
_UNUSED_AFTER: Final = 600.0

#: Takes host and port; returns the current addresses of the name, or raises OSError.
Resolve = Callable[[str, int], Awaitable[frozenset[str]]]


class Request(NamedTuple):
    """A request.

    Attributes:
        method: such as GET.
        url: from configuration only (R21).
        headers: in addition to those of the client library.
        timeout: of each step.
        content: the body; None: no body.
    """

    method: str
    url: str
    headers: Mapping[str, str]
    timeout: httpx.Timeout
    content: bytes | None = None


class _Origin(NamedTuple):
    scheme: str
    host: str
    port: int


@dataclass(eq=False)
class _Pool:
    """The connections to one origin.

    Attributes:
        peers: the addresses of its connections.
        requests: how many are under way.
        used_at: when the last one began or ended, seconds.
        is_retired: it gets no further requests.
    """

    client: httpx.AsyncClient
    peers: set[str] = field(default_factory=set)
    requests: int = 0
    used_at: float = 0.0
    is_retired: bool = False

    async def close_when_unused(self) -> None:
        if self.is_retired and not self.requests:
            await self.client.aclose()


async def resolve(host: str, port: int) -> frozenset[str]:
    """Return the addresses of a host, by the system's resolver.

    Raises:
        OSError: it has none, or the resolver does not answer.
    """
    loop = asyncio.get_running_loop()
    found = await loop.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    return frozenset(_address(entry[4]) for entry in found)


class Connections:
    """Sends requests over kept connections, to origins that configuration names.

    Args:
        authorities: what TLS is checked against.
        max_connections: to one origin at most.
        resolve: the resolver.
        monotonic: gives seconds.
    """

    def __init__(
        self,
        authorities: Authorities,
        *,
        max_connections: int,
        resolve: Resolve = resolve,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self._authorities = authorities
        self._max_connections = max_connections
        self._resolve = resolve
        self._monotonic = monotonic
        self._pools: dict[_Origin, _Pool] = {}
        self._unresolved: set[_Origin] = set()
        self._looked_at = float("-inf")
        self._next_look = monotonic() + LOOK_EVERY
        self._looking: asyncio.Task[None] | None = None

    @asynccontextmanager
    async def stream(self, request: Request) -> AsyncIterator[httpx.Response]:
        """Send a request; yield the answer once its head has arrived.

        Raises:
            httpx.HTTPError, httpx.InvalidURL: there is no answer.
        """
        self._look_beside()
        pool = self._pool_for(request.url)
        pool.requests += 1
        pool.used_at = self._monotonic()
        try:
            async with pool.client.stream(
                request.method,
                request.url,
                headers=dict(request.headers),
                content=request.content,
                timeout=request.timeout,
            ) as response:
                _note_peer(pool, response)
                yield response
        except httpx.TransportError:
            # A new address or authority may help: check before the next request.
            soonest = self._looked_at + _LOOK_AGAIN
            self._next_look = max(self._monotonic(), soonest)
            raise
        finally:
            pool.requests -= 1
            pool.used_at = self._monotonic()
            await pool.close_when_unused()

    async def renew_authorities(self) -> bool:
        """Read the authorities again; return whether they changed.

        Older connections end with the request under way.
        """
        is_new = await asyncio.to_thread(self._authorities.renew)
        if is_new:
            for origin in list(self._pools):
                await self._retire(origin)
        return is_new

    async def close(self) -> None:
        """Close the connections."""
        if self._looking is not None:
            self._looking.cancel()
            with suppress(asyncio.CancelledError):
                await self._looking
        for origin in list(self._pools):
            await self._pools.pop(origin).client.aclose()

    def _pool_for(self, url: str) -> _Pool:
        parsed = httpx.URL(url)
        port = parsed.port or (443 if parsed.scheme == "https" else 80)
        origin = _Origin(parsed.scheme, parsed.host, port)
        if origin not in self._pools:
            self._pools[origin] = _Pool(self._make_client())
        return self._pools[origin]

    def _make_client(self) -> httpx.AsyncClient:
        return httpx.AsyncClient(
            verify=self._authorities.context,
            # R21: requests go only to the configured server, without redirects and
            # without proxies of the environment.
            follow_redirects=False,
            trust_env=False,
            headers={"Accept-Encoding": ACCEPT_ENCODING},
            # Cookies would accumulate, and bind us to one of several backends.
            cookies=CookieJar(DefaultCookiePolicy(allowed_domains=[])),
            limits=httpx.Limits(
                max_connections=self._max_connections,
                max_keepalive_connections=self._max_connections,
            ),
        )

    def _look_beside(self) -> None:
        """Check names and authorities when it is time, without delaying a request."""
        now = self._monotonic()
        is_looking = self._looking is not None and not self._looking.done()
        if now >= self._next_look and not is_looking:
            self._looked_at, self._next_look = now, now + LOOK_EVERY
            self._looking = asyncio.create_task(self._look())

    async def _look(self) -> None:
        try:
            await self.renew_authorities()
            pools = list(self._pools.items())
            # A name that hangs must not delay the others.
            await asyncio.gather(*(self._look_at(*found) for found in pools))
        except Exception:
            # A fault of ours; the existing connections stay in use.
            _LOG.exception("connections.crashed")

    async def _look_at(self, origin: _Origin, pool: _Pool) -> None:
        age = self._monotonic() - pool.used_at
        is_over = not pool.requests and age >= _UNUSED_AFTER
        if not is_over and pool.peers:
            is_over = await self._has_moved(origin, pool)
        # Other authorities may have retired it meanwhile.
        if is_over and self._pools.get(origin) is pool:
            await self._retire(origin)

    async def _has_moved(self, origin: _Origin, pool: _Pool) -> bool:
        try:
            async with asyncio.timeout(_RESOLVE_TIME):
                addresses = await self._resolve(origin.host, origin.port)
        except OSError as error:
            if origin not in self._unresolved:
                self._unresolved.add(origin)
                event(
                    _LOG,
                    logging.WARNING,
                    "connections.name_not_resolved",
                    host=origin.host,
                    error=f"{str(error) or 'no answer'}; the connections there are stay in "
                    "use",
                )
            return False
        self._unresolved.discard(origin)
        if pool.peers <= addresses:
            return False
        event(
            _LOG,
            logging.INFO,
            "connections.address_changed",
            host=origin.host,
            was=sorted(pool.peers),
            addresses=sorted(addresses)[:16],
        )
        return True

    async def _retire(self, origin: _Origin) -> None:
        pool = self._pools.pop(origin)
        self._unresolved.discard(origin)
        pool.is_retired = True
        await pool.close_when_unused()


def _note_peer(pool: _Pool, response: httpx.Response) -> None:
    stream = response.extensions.get("network_stream")
    peer = stream.get_extra_info("server_addr") if stream is not None else None
    if peer is not None:
        pool.peers.add(_address(peer))


def _address(socket_address: tuple[Any, ...]) -> str:
    """Return the address without its zone, which is local to this machine."""
    return str(socket_address[0]).partition("%")[0]
