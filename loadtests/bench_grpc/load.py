"""Checks over gRPC, and what each costs the server."""

from __future__ import annotations

import asyncio
import itertools
import os
import time
from collections.abc import Sequence

import grpc.aio
from envoy.service.auth.v3.external_auth_pb2 import CheckRequest, CheckResponse

from loadtests.bench.cpu import cpu_ns
from loadtests.bench.servers import BenchError, Server
from verifier.wire.grpc.service import METHOD, SERVICE

#: Checks under way at a time, on one connection, as of a thread of Envoy. The bench of
#: HTTP has as many.
WIDTH = 32
_CHECK = f"/{SERVICE}/{METHOD}"
_OPTIONS = [("grpc.enable_http_proxy", 0)]
_DEADLINE = 20.0


def check_of(token: str) -> bytes:
    """Return what Envoy with the shipped config asks about a request."""
    message = CheckRequest()
    attributes = message.attributes
    for peer, port in ((attributes.source, 40_000), (attributes.destination, 8_080)):
        peer.address.socket_address.address = "127.0.0.1"
        peer.address.socket_address.port_value = port
    attributes.context_extensions["policy"] = "default"
    attributes.request.time.GetCurrentTime()
    http = attributes.request.http
    http.id, http.method, http.host = "8241693210938475629", "GET", "shop.example.com"
    http.path, http.scheme, http.protocol = "/orders/7?x=1", "http", "HTTP/1.1"
    for name, value in (
        ("authorization", f"Bearer {token}"),
        ("x-request-id", "5b4e7a0e-2f5b-4a51-9c1d-0d4b3c8f7a10"),
    ):
        http.header_map.headers.add(key=name, raw_value=value.encode())
    encoded: bytes = message.SerializeToString()
    return encoded


def lets_pass(server: Server, message: bytes) -> bool:
    """Ask once; return whether Envoy would let the request pass."""
    with grpc.insecure_channel(f"127.0.0.1:{server.port}", _OPTIONS) as channel:
        answer = channel.unary_unary(_CHECK)(message, timeout=_DEADLINE)
    return bool(CheckResponse.FromString(answer).status.code == 0)


def ask(server: Server, messages: Sequence[bytes], calls: int) -> tuple[float, float]:
    """Ask so many checks; return the CPU of each and the rate.

    Args:
        server: what is asked.
        messages: take turns.
        calls: how many; the load is bounded by this number.

    Returns:
        Microseconds of the server's processes per check, and checks per second.

    Raises:
        BenchError: when a check has no answer.
    """
    return asyncio.run(_ask(server, messages, calls))


async def _ask(
    server: Server, messages: Sequence[bytes], calls: int
) -> tuple[float, float]:
    target = f"127.0.0.1:{server.port}"
    async with grpc.aio.insecure_channel(target, options=_OPTIONS) as channel:
        check = channel.unary_unary(_CHECK)
        turns = itertools.cycle(messages)

        async def repeat(times: int) -> None:
            for _ in range(times):
                await check(next(turns), timeout=_DEADLINE)

        try:
            await repeat(10)
            before, begun = _cpu(server), time.perf_counter()
            await asyncio.gather(*(repeat(calls // WIDTH) for _ in range(WIDTH)))
        except grpc.aio.AioRpcError as error:
            raise BenchError(f"a check has no answer: {error.code()}") from None
        took = time.perf_counter() - begun
        done = calls // WIDTH * WIDTH
        return (_cpu(server) - before) / 1_000 / done, done / took


def _cpu(server: Server) -> int:
    return sum(map(cpu_ns, server.pids))


def pin(core: int) -> None:
    """Run this process on one processor, not the servers'."""
    os.sched_setaffinity(0, {core})
