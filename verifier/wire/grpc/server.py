"""The gRPC server of one worker: starts, bounds calls, drains (decision 0031).

It runs on the worker's event loop, because the gate answers in one thread.

Each worker listens with a socket of its own, which grpcio opens (SO_REUSEPORT); a unix
socket has one worker. A drain sends GOAWAY on every connection and lets the calls
under way finish.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import time
from collections.abc import AsyncIterator, Callable, Sequence
from pathlib import Path
from typing import Any, Final, cast

from shared.listening import closed_until_made
from shared.log import event
from shared.serving.workers.places import CrowdedError, Places
from verifier.check.gate import Gate
from verifier.wire.budgets import SHARE_FOR_OTHERS
from verifier.wire.connections import Admission
from verifier.wire.grpc import budgets
from verifier.wire.grpc.probe import PROBE_METHOD, PROBE_SERVICE, Probe, probe_address
from verifier.wire.grpc.responses import REFUSAL
from verifier.wire.grpc.service import (
    METHOD,
    SERVICE,
    Authorization,
    trust_peer_names,
)
from verifier.wire.grpc.sockets import SocketWatch, filter_listeners

# grpcio writes lines of its own form to standard error; what matters is logged here. It
# reads the variable when it is imported.
os.environ.setdefault("GRPC_VERBOSITY", "NONE")

import grpc
import grpc.aio

_LOG: Final = logging.getLogger(__name__)
UNIX: Final = "unix:"
#: Seconds that calls under way have to finish at a stop.
GRACE: Final = 10.0
_SWEEP_PERIOD: Final = 1.0


class GrpcStartError(Exception):
    """The server cannot listen."""


class GrpcPort:
    """The gRPC port of one worker.

    Args:
        gate: answers the checks.
        is_trusted: returns whether an address is a gateway of ours (R1).
        target: the address in grpcio's form: `HOST:PORT` or `unix:/PATH`.
        max_connections: further ones are closed.
        networks: those of trusted peers. Others cannot connect, where the system has
            packet filters. None: they can, and are ended.
    """

    def __init__(
        self,
        gate: Gate,
        is_trusted: Callable[[str], bool],
        target: str,
        max_connections: int,
        networks: Sequence[str] | None = None,
    ) -> None:
        self._authorization = Authorization(gate)
        self._target = target
        is_unix = target.startswith(UNIX)
        self._is_gateway = trust_peer_names(is_trusted, is_unix=is_unix)
        self._max_connections = max_connections
        #: A unix socket's mode limits who its peers are.
        self._networks = networks
        self._port = 0 if is_unix else int(target.rpartition(":")[2])
        admission = Admission(is_trusted, max_connections)
        self._sockets = None if is_unix else SocketWatch(self._port, admission)
        #: calls that wait for their message, the oldest first, with their deadlines
        self._waiting: dict[asyncio.Task[Any], float] = {}
        self._places = Places(budgets.CALLS, SHARE_FOR_OTHERS)
        self._server: Any = None
        self._stop: asyncio.Task[None] | None = None
        self._probe = Probe(target if is_unix else probe_address(os.getpid()))

    @property
    def is_answering(self) -> bool:
        """Whether the server has answered its probe lately, or drains."""
        return self._stop is not None or self._probe.is_answered

    @contextlib.asynccontextmanager
    async def serving(self) -> AsyncIterator[None]:
        """Serve while the context is open; drain at its end, unless that has begun.

        Raises:
            GrpcStartError: the server cannot listen.
        """
        self._server = self._make_server()
        await self._listen()
        tasks = [asyncio.create_task(self._keep_sweeping()), self._probe.start()]
        if self._sockets is not None:
            tasks.append(asyncio.create_task(_keep_watching(self._sockets)))
        event(_LOG, logging.INFO, "grpc.started", bind=self._target)
        try:
            await self._probe.wait()
            yield
        finally:
            await self.drain()
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
            await self._probe.close()

    def drain(self) -> asyncio.Task[None]:
        """Begin to stop: no new connections, GOAWAY, calls under way may finish.

        Returns:
            The task that ends when they have, or at the end of their time.
        """
        if self._stop is None:
            self._stop = asyncio.create_task(self._server.stop(GRACE))
        return self._stop

    def _make_server(self) -> Any:
        server = grpc.aio.server(
            options=_options(self._max_connections),
            # Beyond `CALLS` each is refused at once, so there are seldom so many.
            maximum_concurrent_rpcs=2 * budgets.CALLS,
        )
        check = grpc.stream_unary_rpc_method_handler(self._check)
        probe = grpc.stream_unary_rpc_method_handler(_answer_probe)
        server.add_generic_rpc_handlers(
            (
                grpc.method_handlers_generic_handler(SERVICE, {METHOD: check}),
                grpc.method_handlers_generic_handler(
                    PROBE_SERVICE, {PROBE_METHOD: probe}
                ),
            )
        )
        return server

    async def _listen(self) -> None:
        try:
            if self._target.startswith(UNIX):
                await self._listen_on_path(Path(self._target.removeprefix(UNIX)))
            else:
                self._server.add_insecure_port(self._target)
                self._server.add_insecure_port(self._probe.address)
                await self._server.start()
                self._keep_strangers_out()
        except (OSError, RuntimeError) as error:
            raise GrpcStartError(f"cannot listen on {self._target}") from error

    def _keep_strangers_out(self) -> None:
        if self._networks is None:
            return
        try:
            filter_listeners(self._port, self._networks)
        except OSError as error:
            # They are ended within a second all the same.
            event(_LOG, logging.WARNING, "grpc.no_filter", error=error.strerror)

    async def _listen_on_path(self, path: Path) -> None:
        with closed_until_made(path) as made:
            self._server.add_insecure_port(f"{UNIX}{made}")
            await self._server.start()

    async def _check(self, _messages: object, context: Any) -> bytes:
        """Answer one call.

        The handler reads the message itself, although there is but one: so a peer that
        is not trusted is refused before anything is read, and the wait has a bound.
        """
        peer = context.peer()
        if not self._is_gateway(peer):
            return self._authorization.refuse_peer()
        host = peer.rpartition(":")[0]
        try:
            self._places.take(host)
        except CrowdedError:
            code = grpc.StatusCode.RESOURCE_EXHAUSTED
            await context.abort(code, "too many calls wait for their message")
        try:
            message = await self._read_message(context)
        finally:
            self._places.release(host)
        # A call without a message has this in place of one, and no bytes.
        is_there = isinstance(message, bytes)
        return self._authorization.check(message if is_there else b"")

    async def _read_message(self, context: Any) -> Any:
        """Return the message of a call; end the call if it does not come in time."""
        task = cast(asyncio.Task[Any], asyncio.current_task())
        self._waiting[task] = time.monotonic() + budgets.MESSAGE_TIME
        try:
            return await context.read()
        except asyncio.CancelledError:
            if task in self._waiting:
                # The peer is gone.
                raise
            task.uncancel()
            await context.abort(grpc.StatusCode.DEADLINE_EXCEEDED, "no message")
        finally:
            self._waiting.pop(task, None)

    def sweep(self, monotonic: float) -> None:
        """End the calls whose message has not come in time.

        Args:
            monotonic: seconds.
        """
        for task, deadline in list(self._waiting.items()):
            if deadline > monotonic:
                break
            del self._waiting[task]
            task.cancel()

    async def _keep_sweeping(self) -> None:
        while True:
            await asyncio.sleep(_SWEEP_PERIOD)
            self.sweep(time.monotonic())


async def _keep_watching(sockets: SocketWatch) -> None:
    while True:
        await asyncio.sleep(_SWEEP_PERIOD)
        # Descriptors can be exhausted for a while.
        with contextlib.suppress(OSError):
            await asyncio.to_thread(sockets.sweep, time.monotonic())


async def _answer_probe(_messages: object, _context: object) -> bytes:
    # As in every answer of this server: were it ever read as one to a check, an empty
    # one would let a request pass.
    return REFUSAL


def _options(max_connections: int) -> list[tuple[str, int]]:
    """Return the settings of grpcio's server; times are in milliseconds there."""
    return [
        # Each worker has a socket of its own at one address.
        ("grpc.so_reuseport", 1),
        ("grpc.max_allowed_incoming_connections", max_connections),
        ("grpc.max_concurrent_streams", budgets.STREAMS),
        ("grpc.max_receive_message_length", budgets.MESSAGE_BYTES),
        ("grpc.max_metadata_size", budgets.METADATA_BYTES),
        ("grpc.absolute_max_metadata_size", budgets.METADATA_BYTES),
        # Otherwise a peer that sends fast gets a window of megabytes.
        ("grpc.http2.bdp_probe", 0),
        ("grpc.max_connection_idle_ms", _ms(budgets.IDLE_TIME)),
        ("grpc.max_connection_age_ms", _ms(budgets.CONNECTION_TIME)),
        ("grpc.max_connection_age_grace_ms", _ms(budgets.CONNECTION_GRACE)),
        ("grpc.keepalive_time_ms", _ms(budgets.PING_PERIOD)),
        ("grpc.keepalive_timeout_ms", _ms(budgets.PING_TIMEOUT)),
        ("grpc.keepalive_permit_without_calls", 1),
        (
            "grpc.http2.min_ping_interval_without_data_ms",
            _ms(budgets.PEER_PING_PERIOD),
        ),
        ("grpc.server_handshake_timeout_ms", _ms(budgets.HANDSHAKE_TIME)),
    ]


def _ms(seconds: float) -> int:
    return int(seconds * 1_000)
