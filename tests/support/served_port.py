"""An application served on one port with given limits: uvicorn and uvloop, in a
thread.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, TypeVar, cast

import uvicorn
import uvloop

from shared.serving.connection import Connection
from shared.serving.limits import Limits
from shared.serving.port import Port
from tests.support.processes import PATIENCE

T = TypeVar("T")


class _Server(uvicorn.Server):
    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Leave pytest's alone."""
        yield


class ServedPort:
    """A served port.

    Attributes:
        address: its TCP port, or the path of its unix socket.
        port: the state that its connections share.
    """

    def __init__(self, app: Any, limits: Limits, listening: socket.socket) -> None:
        self.port = Port("test", limits)
        name = listening.getsockname()
        self.address: int | Path = Path(name) if isinstance(name, str) else name[1]
        self._server = _Server(
            uvicorn.Config(
                app,
                http=cast(Any, self.port),
                ws="none",
                lifespan="off",
                log_config=None,
                timeout_graceful_shutdown=2,
            )
        )
        self._listening = listening
        self._loop: asyncio.AbstractEventLoop | None = None
        self._is_started = threading.Event()
        self._thread = threading.Thread(target=self._run)
        self._thread.start()
        assert self._is_started.wait(PATIENCE)

    def _run(self) -> None:
        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            runner.run(self._serve())

    async def _serve(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._loop.call_soon(self._is_started.set)
        await self._server.serve(sockets=[self._listening])

    def ask(self, question: Callable[[], T]) -> T:
        """Call a function in the server's loop and return its answer."""

        async def asked() -> T:
            return question()

        assert self._loop is not None
        return asyncio.run_coroutine_threadsafe(asked(), self._loop).result(PATIENCE)

    def connections(self) -> list[Connection]:
        """Return the connections that hold a place."""
        return self.ask(
            lambda: [
                cast(Any, each)._owner for each in self._server.server_state.connections
            ]
        )

    def begin_stop(self) -> None:
        """Have the server drain."""
        self._server.should_exit = True

    def stop(self) -> None:
        """Stop and wait."""
        self.begin_stop()
        self._thread.join(PATIENCE)
        assert not self._thread.is_alive()


@contextlib.contextmanager
def serving(
    app: Any, limits: Limits, unix_path: Path | None = None
) -> Iterator[ServedPort]:
    """Serve an application until the block ends."""
    if unix_path is None:
        listening = socket.create_server(("127.0.0.1", 0))
    else:
        listening = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        listening.bind(str(unix_path))
        listening.listen()
    served = ServedPort(app, limits, listening)
    try:
        yield served
    finally:
        served.stop()
