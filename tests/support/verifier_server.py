"""A verifier's wire side on a real socket, its gate fed by the simulator.

Both edges can be asked: the fast path (`GateProtocol`) and plain ASGI under uvicorn's
own httptools protocol. The clock stands still, so no answer depends on how fast a test
runs; `sweep` is called by the test.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any, Final

import uvicorn

from tests.support.gatehouse_verifier import SimulatedVerifier
from verifier.wire.asgi import VerifierApp
from verifier.wire.connections import trust_peers
from verifier.wire.hosting import LifespanApp, gate_protocol
from verifier.wire.public_port import PublicPort

EDGES: Final[dict[str, Any]] = {"fast": gate_protocol, "asgi": "httptools"}
_DEADLINE: Final = 10.0


class VerifierServer:
    """A listening verifier.

    Attributes:
        port: the state that all connections share.
        address: where it listens.
    """

    def __init__(self, port: PublicPort, address: tuple[str, int] | str) -> None:
        self.port = port
        self.address = address

    async def connect(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        """Open a connection."""
        if isinstance(self.address, str):
            return await asyncio.open_unix_connection(self.address)
        return await asyncio.open_connection(*self.address)

    async def talk(self, *chunks: bytes, answers: int | None = None) -> bytes:
        """Send the chunks, each in a write of its own, and return the answer.

        Args:
            chunks: pieces of one or more requests.
            answers: return after that many heads of answers; None: read until the
                server closes.
        """
        reader, writer = await self.connect()
        try:
            for chunk in chunks:
                writer.write(chunk)
                await writer.drain()
                # Let the server read this piece before the next is written.
                await asyncio.sleep(0)
            async with asyncio.timeout(_DEADLINE):
                if answers is None:
                    return await reader.read()
                heads = [await reader.readuntil(b"\r\n\r\n") for _ in range(answers)]
                return b"".join(heads)
        finally:
            writer.close()


@contextlib.asynccontextmanager
async def serving(
    verifier: SimulatedVerifier,
    edge_name: str,
    *,
    unix_path: Path | None = None,
    max_connections: int = 100,
    trusted_peers: tuple[str, ...] = ("127.0.0.0/8",),
) -> AsyncIterator[VerifierServer]:
    """Serve the verifier's gate through the named port until the block ends."""
    port = PublicPort(
        verifier.gate,
        trust_peers(trusted_peers),
        max_connections,
        verifier.clock.monotonic(),
    )

    @contextlib.asynccontextmanager
    async def lifespan() -> AsyncIterator[PublicPort]:
        yield port

    listener, address = _listen(unix_path)
    config = uvicorn.Config(
        LifespanApp(lifespan) if edge_name == "fast" else VerifierApp(lifespan),
        http=EDGES[edge_name],
        ws="none",
        lifespan="on",
        log_config=None,
        access_log=False,
        server_header=False,
        date_header=False,
        proxy_headers=False,
    )
    config.load()
    server = uvicorn.Server(config)
    server.lifespan = config.lifespan_class(config)
    await server.startup(sockets=[listener])
    try:
        yield VerifierServer(port, address)
    finally:
        # Not `server.shutdown`, which sleeps a tenth of a second in each of many tests.
        for asyncio_server in server.servers:
            asyncio_server.close()
        for connection in list(server.server_state.connections):
            connection.transport.abort()
        await asyncio.sleep(0)
        await server.lifespan.shutdown()


def _listen(unix_path: Path | None) -> tuple[socket.socket, tuple[str, int] | str]:
    if unix_path is not None:
        listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        listener.bind(str(unix_path))
        address: tuple[str, int] | str = str(unix_path)
    else:
        listener = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
        listener.bind(("127.0.0.1", 0))
        address = listener.getsockname()
    listener.listen(2_048)
    return listener, address
