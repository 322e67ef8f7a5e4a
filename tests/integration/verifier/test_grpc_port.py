"""The gRPC port on a real socket: who is answered, the bounds, the end."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import stat
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import grpc
import grpc.aio
import pytest

from tests.support.gatehouse_verifier import SimulatedVerifier, started
from tests.support.grpc_checks import CHECK, Verdict, check_message, read_verdict
from tests.support.processes import free_port
from verifier.wire.connections import trust_peers
from verifier.wire.grpc import budgets
from verifier.wire.grpc.probe import PATIENCE
from verifier.wire.grpc.server import GrpcPort, GrpcStartError

DEADLINE = 20.0


@asynccontextmanager
async def served(
    verifier: SimulatedVerifier,
    target: str = "",
    *,
    peers: tuple[str, ...] = ("127.0.0.0/8",),
    max_connections: int = 100,
    filters: bool = False,
) -> AsyncIterator[tuple[GrpcPort, str]]:
    """Serve the gate; give the port and where it listens."""
    target = target or f"127.0.0.1:{free_port()}"
    trusted, networks = trust_peers(peers), peers if filters else None
    port = GrpcPort(verifier.gate, trusted, target, max_connections, networks)
    async with port.serving():
        yield port, target


@asynccontextmanager
async def channel_to(target: str) -> AsyncIterator[Any]:
    options = [("grpc.enable_http_proxy", 0), ("grpc.enable_retries", 0)]
    async with grpc.aio.insecure_channel(target, options=options) as channel:
        yield channel


async def ask(channel: Any, message: bytes, **options: Any) -> Verdict:
    answer = await channel.unary_unary(CHECK)(message, timeout=DEADLINE, **options)
    return read_verdict(answer)


async def begun(channel: Any, port: GrpcPort) -> Any:
    """Return a call whose message is not sent yet, once the server waits for it."""
    call = channel.stream_unary(CHECK)(timeout=DEADLINE)
    await call.wait_for_connection()
    async with asyncio.timeout(DEADLINE):
        while not port._waiting:
            await asyncio.sleep(0.01)
    return call


async def test_a_check_is_answered() -> None:
    verifier = await started()
    async with served(verifier) as (port, target), channel_to(target) as channel:
        verdict = await ask(channel, check_message(verifier.issuer.mint()))
        assert (verdict.lets_pass, verdict.headers["x-auth-user"]) == (True, "alice")
        assert (await ask(channel, check_message())).status == 401
        assert not port._waiting


async def test_r1_an_untrusted_peer_is_refused_with_the_best_of_tokens() -> None:
    verifier = await started()
    peers = ("10.0.0.0/8",)
    async with (
        served(verifier, peers=peers) as (_, target),
        channel_to(target) as channel,
    ):
        verdict = await ask(channel, check_message(verifier.issuer.mint()))
        assert (verdict.lets_pass, verdict.status) == (False, 503)
        assert verifier.last_reason() == "peer_untrusted"


async def test_r1_the_socket_of_the_probe_answers_no_checks() -> None:
    """Any program may open it."""
    verifier = await started()
    async with (
        served(verifier) as (port, _),
        channel_to(port._probe.address) as channel,
    ):
        verdict = await ask(channel, check_message(verifier.issuer.mint()))
        assert not verdict.lets_pass
        assert verifier.last_reason() == "peer_untrusted"


async def test_r1_a_unix_socket_is_trusted_and_open_to_user_and_group(
    tmp_path: Path,
) -> None:
    verifier = await started()
    path = tmp_path / "grpc.sock"
    target = f"unix:{path}"
    async with served(verifier, target, peers=()) as (_, _):
        assert stat.S_IMODE(path.stat().st_mode) == 0o660
        assert [entry.name for entry in tmp_path.iterdir()] == [path.name]
        async with channel_to(target) as channel:
            verdict = await ask(channel, check_message(verifier.issuer.mint()))
            assert verdict.lets_pass


async def test_an_unknown_method_is_no_answer() -> None:
    async with (
        served(await started()) as (_, target),
        channel_to(target) as channel,
    ):
        for method in (CHECK + "2", "/envoy.service.auth.v2.Authorization/Check"):
            with pytest.raises(grpc.aio.AioRpcError) as refused:
                await channel.unary_unary(method)(check_message(), timeout=DEADLINE)
            assert refused.value.code() is grpc.StatusCode.UNIMPLEMENTED


async def test_r40_a_message_has_a_bound() -> None:
    verifier = await started()
    async with served(verifier) as (_, target), channel_to(target) as channel:
        with pytest.raises(grpc.aio.AioRpcError) as refused:
            await ask(channel, bytes(budgets.MESSAGE_BYTES + 1))
        assert refused.value.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
        assert (await ask(channel, bytes(budgets.MESSAGE_BYTES))).status == 401


async def test_r40_metadata_has_a_bound() -> None:
    async with (
        served(await started()) as (_, target),
        channel_to(target) as channel,
    ):
        metadata = [("x-long", "a" * budgets.METADATA_BYTES)]
        with pytest.raises(grpc.aio.AioRpcError) as refused:
            await ask(channel, check_message(), metadata=metadata)
        assert refused.value.code() is grpc.StatusCode.RESOURCE_EXHAUSTED


async def test_r40_a_call_whose_message_does_not_come_is_ended() -> None:
    async with served(await started()) as (port, target), channel_to(target) as channel:
        call = await begun(channel, port)
        port.sweep(time.monotonic())
        assert not call.done()
        port.sweep(time.monotonic() + budgets.MESSAGE_TIME)
        with pytest.raises(grpc.aio.AioRpcError) as ended:
            await call
        assert ended.value.code() is grpc.StatusCode.DEADLINE_EXCEEDED
        assert ended.value.details() == "no message"
        assert not port._waiting
        assert (await ask(channel, check_message())).status == 401


async def test_r43_one_peer_leaves_calls_to_the_others(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """As for connections: one in ten is for others."""
    monkeypatch.setattr(budgets, "CALLS", 10)
    async with served(await started()) as (port, target), channel_to(target) as channel:
        calls = [channel.stream_unary(CHECK)(timeout=DEADLINE) for _ in range(10)]
        ended, _ = await asyncio.wait(
            [asyncio.ensure_future(call.code()) for call in calls],
            timeout=DEADLINE,
            return_when=asyncio.FIRST_COMPLETED,
        )
        codes = [task.result() for task in ended]
        assert codes == [grpc.StatusCode.RESOURCE_EXHAUSTED]
        assert len(port._waiting) == 9
        for call in calls:
            call.cancel()


async def test_a_call_that_ends_without_a_message_is_refused() -> None:
    async with served(await started()) as (port, target), channel_to(target) as channel:
        call = await begun(channel, port)
        await call.done_writing()
        assert not read_verdict(await call).lets_pass


async def test_r43_connections_have_a_bound() -> None:
    verifier = await started()
    most = 3
    async with served(verifier, max_connections=most) as (_, target):
        host, _, number = target.rpartition(":")
        loop = asyncio.get_running_loop()
        taken = []
        for _ in range(most + 5):
            connection = socket.create_connection((host, int(number)))
            connection.setblocking(False)
            taken.append(connection)
        ended = 0
        for connection in taken:
            # The server begins with its SETTINGS.
            async with asyncio.timeout(DEADLINE):
                try:
                    ended += not await loop.sock_recv(connection, 1)
                except ConnectionResetError:
                    ended += 1
        for connection in taken:
            connection.close()
        # The probe has one, too.
        assert ended >= 5


async def connect(target: str, most: int, host: str = "127.0.0.1") -> list[Any]:
    """Open so many connections from a host, and return reader and writer of each."""
    number = int(target.rpartition(":")[2])
    opened = [
        asyncio.open_connection("127.0.0.1", number, local_addr=(host, 0))
        for _ in range(most)
    ]
    return await asyncio.gather(*opened)


async def count_ended(connections: list[Any], wanted: int) -> int:
    """Wait until so many have been ended by the server, and return how many are."""

    async def read_to_end(reader: Any) -> None:
        with contextlib.suppress(ConnectionResetError):
            while await reader.read(1_000):
                pass

    readers = [asyncio.create_task(read_to_end(reader)) for reader, _ in connections]
    async with asyncio.timeout(DEADLINE):
        while sum(task.done() for task in readers) < wanted:
            await asyncio.sleep(0.01)
    # Others would have been ended in the same sweep.
    await asyncio.sleep(0.05)
    ended = sum(task.done() for task in readers)
    for task in readers:
        task.cancel()
    for _, writer in connections:
        writer.close()
    return ended


async def test_r43_an_untrusted_peer_holds_no_connection() -> None:
    """Before, it could hold all of them for minutes."""
    verifier = await started()
    async with served(verifier, peers=("127.0.0.1/32",)) as (_, target):
        strangers = await connect(target, 5, host="127.0.0.2")
        async with channel_to(target) as channel:
            assert (await ask(channel, check_message())).status == 401
            assert await count_ended(strangers, 5) == 5
            assert (await ask(channel, check_message())).status == 401


async def test_r43_an_untrusted_peer_cannot_connect() -> None:
    """Its packets are dropped: grpcio grew by 20 MB for each connection."""
    verifier = await started()
    networks = ("10.0.0.0/8", "2001:db8::/32", "127.0.0.0/31")
    async with served(verifier, peers=networks, filters=True) as (_, target):
        async with channel_to(target) as channel:
            assert (await ask(channel, check_message())).status == 401
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(connect(target, 1, host="127.0.0.2"), 0.3)


async def test_r43_one_peer_leaves_connections_to_the_others() -> None:
    """As on the HTTP port: one in ten is for others."""
    verifier = await started()
    async with served(verifier, max_connections=20) as (_, target):
        assert await count_ended(await connect(target, 19), 1) == 1


async def test_r60_a_call_under_way_finishes_during_the_drain() -> None:
    verifier = await started()
    async with served(verifier) as (port, target), channel_to(target) as channel:
        call = await begun(channel, port)
        port.drain()
        # Other calls do not begin any more, on this connection or another.
        async with channel_to(target) as late:
            with pytest.raises(grpc.aio.AioRpcError) as refused:
                await ask(late, check_message())
            # The second while the listener closes. Envoy asks again after both.
            statuses = {grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.CANCELLED}
            assert refused.value.code() in statuses
        await call.write(check_message(verifier.issuer.mint()))
        assert read_verdict(await call).lets_pass
        assert port.is_answering


async def test_a_port_that_is_not_open_yet_is_not_ready() -> None:
    verifier = await started()
    port = GrpcPort(verifier.gate, trust_peers([]), f"127.0.0.1:{free_port()}", 1)
    assert not port.is_answering


async def test_a_server_that_has_died_is_seen() -> None:
    async with served(await started()) as (port, _):
        assert port.is_answering
        await port._server.stop(0)
        begun_at = time.monotonic()
        while port.is_answering:
            assert time.monotonic() < begun_at + PATIENCE + DEADLINE
            await asyncio.sleep(0.05)


async def test_two_workers_listen_at_one_address_and_a_stranger_is_found() -> None:
    verifier = await started()
    target = f"127.0.0.1:{free_port()}"
    async with (
        served(verifier, target),
        served(verifier, target),
        channel_to(target) as channel,
    ):
        assert (await ask(channel, check_message())).status == 401
    with socket.create_server(("127.0.0.1", 0)) as stranger:
        taken = f"127.0.0.1:{stranger.getsockname()[1]}"
        with pytest.raises(GrpcStartError, match="cannot listen"):
            async with served(verifier, taken):
                pass
