"""How fast a revocation is in force in a gateway, also with a million entries."""

from __future__ import annotations

import asyncio
import time
from typing import Final

from loadtests.bench.cpu import resident_bytes
from loadtests.bench_issuer.client import Connections
from loadtests.bench_native.gateways import Envoy, MakeGateway
from loadtests.bench_native.site import NativeSite, running
from loadtests.bench_revocation.entries import fill
from loadtests.bench_revocation.environment import BenchError
from loadtests.bench_revocation.measures import Figure, figures_of

#: Seconds for one refusal.
_PATIENCE: Final = 60.0
#: Seconds until a first revocation is confirmed: the staleness is 11.
_START: Final = 30
#: More entries than the small filter takes: the large one is built anew.
_MORE: Final = 60_000


def refusals(entries: int, samples: int, make_gateway: MakeGateway) -> list[Figure]:
    """Revoke call sent -> first refusal of a client that asks without a pause."""
    with running(entries, make_gateway) as site:
        site.start()
        delays = asyncio.run(_delays(site, samples))
        name = site.gateway.name
    return figures_of(f"first refusal through {name}, {entries:,} entries", delays)


def large_list(entries: int, samples: int) -> list[Figure]:
    """Memory and times of Envoy with very many entries."""
    name = f"{entries:,} entries in Envoy"
    with running(entries, Envoy) as site:
        envoy = site.gateway.start()
        figures = [_memory(f"{name}, memory before", envoy.pid)]
        began = time.monotonic()
        site.start_native()
        site.wait_until_open()
        took = time.monotonic() - began
        figures += [
            Figure(f"{name}, start of native to all in force", took, "s"),
            _memory(f"{name}, memory after", envoy.pid),
        ]
        figures += figures_of(
            f"first refusal through Envoy, {entries:,} entries",
            asyncio.run(_delays(site, samples)),
        )
        figures.append(_memory(f"{name}, memory after {samples} more", envoy.pid))
        asyncio.run(
            fill(site.environment.database_url, _MORE, is_mixed=True),
        )
        behind = asyncio.run(_delays(site, max(samples // 10, 1)))
        figures += [
            Figure(f"{name}, longest wait behind {_MORE:,} more", max(behind), "s"),
            _memory(f"{name}, memory after {_MORE:,} more", envoy.pid),
        ]
        envoy.kill()
        began = time.monotonic()
        envoy = site.gateway.start()
        site.wait_until_open()
        took = time.monotonic() - began
        figures += [
            Figure(f"{name}, start of Envoy to all in force", took, "s"),
            _memory(f"{name}, memory after its start", envoy.pid),
        ]
    return figures


def _memory(name: str, pid: int) -> Figure:
    return Figure(name, resident_bytes(pid) / 1_000_000, "MB")


async def _delays(site: NativeSite, samples: int) -> list[float]:
    """Return the seconds from each call to the first refusal.

    Raises:
        BenchError: the gateway refuses a good token, or never a revoked one.
    """
    gateway = Connections(site.gateway.port)
    delays = []
    first, *tokens = await site.environment.mint(samples + 1)
    # Until the window of a process before this one is over, `native` asks for news
    # twenty times a second and is not held by the issuer.
    if not (await site.environment.revoke(first, wait=_START)).json()["confirmed"]:
        raise BenchError("no revocation is confirmed")
    for token in tokens:
        head = "GET /orders HTTP/1.1\r\nHost: a\r\nAuthorization: Bearer "
        request = f"{head}{token}\r\n\r\n".encode()
        answer = await gateway.send(request)
        if answer.status != 200:
            name = site.gateway.name
            raise BenchError(f"{name} answers a good token {answer.status}")
        began = time.monotonic()
        refused, _ = await asyncio.gather(
            _refused(gateway, request), site.environment.revoke(token)
        )
        delays.append(refused - began)
    gateway.close()
    site.environment.issuer.close()
    return delays


async def _refused(gateway: Connections, request: bytes) -> float:
    """Ask until the answer is 401; return the time, monotonic seconds."""
    end = time.monotonic() + _PATIENCE
    while (await gateway.send(request)).status != 401:
        if time.monotonic() > end:
            raise BenchError(f"not refused within {_PATIENCE} s")
    return time.monotonic()
