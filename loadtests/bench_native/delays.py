"""How fast a revocation is in force in Envoy, with few entries and with a million."""

from __future__ import annotations

import asyncio
import time
from typing import Final

from loadtests.bench.cpu import resident_bytes
from loadtests.bench_issuer.client import Connections
from loadtests.bench_native.site import NativeSite, running
from loadtests.bench_revocation.entries import fill
from loadtests.bench_revocation.environment import BenchError
from loadtests.bench_revocation.measures import Figure, figures_of

#: Seconds for one refusal.
_PATIENCE: Final = 60.0
#: Seconds until a first revocation is confirmed: the staleness is 11.
_START: Final = 30
#: More entries than the middle filter takes: the large one is built anew.
_MORE: Final = 60_000


def refusals(entries: int, samples: int) -> list[Figure]:
    """Revoke call sent -> first refusal of a client that asks Envoy without a pause."""
    with running(entries) as site:
        site.start_envoy()
        site.start_native()
        site.wait_until_open()
        delays = asyncio.run(_delays(site, samples))
    return figures_of(f"first refusal through Envoy, {entries:,} entries", delays)


def large_list(entries: int, samples: int) -> list[Figure]:
    """Memory and times of Envoy with very many entries."""
    name = f"{entries:,} entries in Envoy"
    with running(entries) as site:
        envoy = site.start_envoy()
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
        envoy = site.start_envoy()
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
        BenchError: Envoy refuses a good token, or never a revoked one.
    """
    envoy = Connections(site.port)
    delays = []
    first, *tokens = await site.environment.mint(samples + 1)
    # Until the window of a process before this one is over, `native` asks for news
    # twenty times a second and is not held by the issuer.
    if not (await site.environment.revoke(first, wait=_START)).json()["confirmed"]:
        raise BenchError("no revocation is confirmed")
    for token in tokens:
        head = "GET /orders HTTP/1.1\r\nHost: a\r\nAuthorization: Bearer "
        request = f"{head}{token}\r\n\r\n".encode()
        answer = await envoy.send(request)
        if answer.status != 200:
            raise BenchError(f"Envoy answers a good token {answer.status}")
        began = time.monotonic()
        refused, _ = await asyncio.gather(
            _refused(envoy, request), site.environment.revoke(token)
        )
        delays.append(refused - began)
    envoy.close()
    site.environment.issuer.close()
    return delays


async def _refused(envoy: Connections, request: bytes) -> float:
    """Ask until the answer is 401; return the time, monotonic seconds."""
    end = time.monotonic() + _PATIENCE
    while (await envoy.send(request)).status != 401:
        if time.monotonic() > end:
            raise BenchError(f"not refused within {_PATIENCE} s")
    return time.monotonic()
