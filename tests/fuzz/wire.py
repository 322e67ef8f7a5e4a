"""The fast path fed raw bytes, without a socket."""

from __future__ import annotations

import asyncio
import contextlib
import re
from collections.abc import AsyncIterator, Iterable
from typing import Any

import uvicorn
from uvicorn.server import ServerState

from tests.fuzz.house import verifier
from verifier.asgi import VerifierApp
from verifier.edge import Edge, trust_peers
from verifier.protocol import GateProtocol

_STATUS = re.compile(rb"HTTP/1\.1 (\d{3}) ")


class KeptTransport(asyncio.Transport):
    """A transport that keeps what is written and is read by nobody."""

    def __init__(self) -> None:
        super().__init__({"peername": ("127.0.0.1", 1), "sockname": ("127.0.0.1", 2)})
        self.written: list[bytes] = []
        self._is_closing = False

    def write(self, data: Any) -> None:
        """Keep it; after a close nothing more goes out."""
        if not self._is_closing:
            self.written.append(bytes(data))

    def close(self) -> None:
        self._is_closing = True

    def is_closing(self) -> bool:
        return self._is_closing

    def pause_reading(self) -> None:
        """Nothing is read anyway."""

    def resume_reading(self) -> None:
        """Nothing is read anyway."""


class Wire:
    """Connections of one worker, one after the other."""

    def __init__(self) -> None:
        self._gate = verifier().gate
        self._edge = Edge(self._gate, trust_peers(["127.0.0.0/8"]), 10, 0.0)
        self._loop = asyncio.new_event_loop()
        self._loop.set_exception_handler(self._note)
        self._trouble: list[str] = []
        self._app = VerifierApp(self._lifespan)
        self._config = uvicorn.Config(
            self._app,
            http=GateProtocol,
            ws="none",
            lifespan="on",
            log_config=None,
            access_log=False,
            server_header=False,
            date_header=False,
            proxy_headers=False,
        )
        self._config.load()
        self._state = ServerState()
        self._app_state: dict[str, Any] = {}
        self._life = self._loop.run_until_complete(self._start())

    @contextlib.asynccontextmanager
    async def _lifespan(self) -> AsyncIterator[Edge]:
        yield self._edge

    async def _start(self) -> asyncio.Task[None]:
        """Begin the application's life, which ends with the process."""
        is_started = asyncio.Event()

        async def receive() -> dict[str, Any]:
            if is_started.is_set():
                await asyncio.Event().wait()
            return {"type": "lifespan.startup"}

        async def send(_message: dict[str, Any]) -> None:
            is_started.set()

        scope = {"type": "lifespan", "state": self._app_state}
        task = asyncio.create_task(self._app(scope, receive, send))
        await is_started.wait()
        return task

    def _note(self, _loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
        self._trouble.append(str(context.get("exception") or context["message"]))

    def statuses(self, pieces: Iterable[bytes]) -> list[int]:
        """Send the pieces over a new connection; return the statuses of all answers."""
        transport = KeptTransport()
        protocol = GateProtocol(
            self._config, self._state, self._app_state, _loop=self._loop
        )
        protocol.connection_made(transport)
        for piece in pieces:
            if transport.is_closing():
                break
            protocol.data_received(piece)
            self._run_tasks()
        protocol.connection_lost(None)
        self._run_tasks()
        assert not self._edge.connections
        assert not self._trouble, self._trouble
        assert not self._gate.counts["internal_error"]
        answered = b"".join(transport.written)
        return [int(status) for status in _STATUS.findall(answered)]

    def _run_tasks(self) -> None:
        """Let answers leave, and the application answer what was left to it."""
        for _ in range(1_000):
            self._loop.run_until_complete(asyncio.sleep(0))
            if not self._state.tasks:
                return
        raise AssertionError("a request is never answered")
