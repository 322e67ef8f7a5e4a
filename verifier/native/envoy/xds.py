"""The xDS server that Envoys ask for our filters, on a unix socket.

Envoy asks over its aggregated stream (ADS): one stream is one Envoy process, and what
is sent over it comes into force in order (Envoy's xDS protocol, "Aggregated Discovery
Service").
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any, Final

from envoy.service.discovery.v3.discovery_pb2 import DiscoveryRequest
from google.protobuf.message import DecodeError

from shared.listening import closed_until_made
from shared.log import event
from verifier.native.content import ContentSource
from verifier.native.envoy.admin import EnvoyAdmin
from verifier.native.envoy.process import TYPE_URL, EnvoyProcess
from verifier.native.in_force import InForce, TooManyProcessesError
from verifier.native.writer import Writer

# As in verifier/wire/grpc/server.py: before grpcio is imported.
os.environ.setdefault("GRPC_VERBOSITY", "NONE")

import grpc
import grpc.aio

_LOG: Final = logging.getLogger(__name__)
_SERVICE: Final = "envoy.service.discovery.v3.AggregatedDiscoveryService"
_METHOD: Final = "StreamAggregatedResources"
#: Bytes of a request: names, and a node with its features.
_REQUEST_BYTES: Final = 262_144
#: Streams at one time; each is an Envoy process.
_STREAMS: Final = 32
#: Characters of a node's id that are kept.
_NODE_CHARS: Final = 100
_UNIX: Final = "unix:"


class XdsServer:
    """Serves our filters to the Envoys that ask for them.

    Args:
        target: `unix:/PATH`.
        source: of what is written.
        in_force: learns what is proven.
        admin: proves what Envoy's workers have.

    Attributes:
        writers: of the Envoys that are connected.
    """

    def __init__(
        self,
        target: str,
        source: ContentSource,
        in_force: InForce,
        admin: EnvoyAdmin,
    ) -> None:
        self._target = target
        self._source = source
        self._in_force = in_force
        self._admin = admin
        self.writers: dict[str, Writer] = {}

    @property
    def last_error(self) -> str:
        """Why there is nothing to write into; empty while there is an Envoy."""
        if self.writers:
            return ""
        return "VERIFIER_ENVOY_BIND: no Envoy is connected to it"

    @contextlib.asynccontextmanager
    async def writing(self) -> AsyncIterator[None]:
        """Serve while the context is open.

        Envoys keep what they have at its end, until their window is over.

        Raises:
            OSError, RuntimeError: it cannot listen there.
        """
        server = grpc.aio.server(options=_OPTIONS, maximum_concurrent_rpcs=_STREAMS)
        handler = grpc.stream_stream_rpc_method_handler(self._stream)
        server.add_generic_rpc_handlers(
            (grpc.method_handlers_generic_handler(_SERVICE, {_METHOD: handler}),)
        )
        with closed_until_made(Path(self._target.removeprefix(_UNIX))) as made:
            server.add_insecure_port(f"{_UNIX}{made}")
            await server.start()
        try:
            yield
        finally:
            await server.stop(None)
            await self._admin.close()

    async def _stream(self, _messages: object, context: Any) -> None:
        """Serve one Envoy process, until it or we end the stream."""
        first = await self._read(context)
        if first is None:
            return
        node = first.node.id[:_NODE_CHARS] or "without-id"
        process = EnvoyProcess(node, context.write, self._admin)
        writer = Writer(process, self._source, self._in_force, ready=process.ready)
        event(_LOG, logging.INFO, "native.connected", gateway=process.name)
        self.writers[process.name] = writer
        writing = asyncio.create_task(writer.run())
        reading = asyncio.create_task(self._hear(context, process, first))
        try:
            await asyncio.wait({writing, reading}, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for task in (writing, reading):
                task.cancel()
            ended = await asyncio.gather(writing, reading, return_exceptions=True)
            del self.writers[process.name]
            event(_LOG, logging.WARNING, "native.disconnected", gateway=process.name)
        for error in ended:
            if isinstance(error, TooManyProcessesError | ValueError):
                why = str(error)
                event(_LOG, logging.WARNING, "native.refused", gateway=node, error=why)
                await context.abort(grpc.StatusCode.RESOURCE_EXHAUSTED, str(error))
            if isinstance(error, Exception):
                raise error

    async def _hear(
        self, context: Any, process: EnvoyProcess, first: DiscoveryRequest
    ) -> None:
        request: DiscoveryRequest | None = first
        while request is not None:
            # Envoys also ask over this stream for what others would serve.
            if request.type_url == TYPE_URL:
                process.heard(request)
            request = await self._read(context)

    async def _read(self, context: Any) -> DiscoveryRequest | None:
        """Return the next request; None at the end of the stream."""
        message = await context.read()
        if not isinstance(message, bytes):
            return None
        try:
            return DiscoveryRequest.FromString(message)
        except DecodeError:
            await context.abort(grpc.StatusCode.INVALID_ARGUMENT, "not a request")
            return None


_OPTIONS: Final = [
    ("grpc.max_receive_message_length", _REQUEST_BYTES),
    # A million entries are 40 MB.
    ("grpc.max_send_message_length", -1),
    ("grpc.max_concurrent_streams", _STREAMS),
    # An Envoy whose machine is gone must not count as connected.
    ("grpc.keepalive_time_ms", 10_000),
    ("grpc.keepalive_timeout_ms", 5_000),
    ("grpc.http2.min_ping_interval_without_data_ms", 5_000),
]
