"""A relay between a gateway and `native`, whose connections can be cut."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from contextlib import suppress
from pathlib import Path

_CHUNK = 65_536


class Relay:
    """Passes bytes between a unix socket and another one.

    Args:
        path: where it listens.
        to: the socket behind it.
    """

    def __init__(self, path: Path, to: Path) -> None:
        self._path = path
        self._to = to
        self._open: set[asyncio.StreamWriter] = set()
        self._flows = asyncio.Event()
        self._flows.set()
        self._tasks: set[asyncio.Task[None]] = set()

    async def start(self) -> None:
        """Listen in place of whatever has the path."""
        self._path.unlink(missing_ok=True)
        self._server = await asyncio.start_unix_server(self._accept, self._path)

    async def stop(self) -> None:
        """Stop, and close all connections."""
        self._server.close()
        self.cut()
        for task in list(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    def cut(self) -> None:
        """Close all connections; new ones are accepted."""
        for writer in list(self._open):
            writer.transport.abort()

    def hold(self) -> None:
        """Keep connections open, and pass nothing until `release`."""
        self._flows.clear()

    def release(self) -> None:
        """Pass what was held."""
        self._flows.set()

    async def _accept(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        try:
            there, back = await asyncio.open_unix_connection(self._to)
        except OSError:
            writer.transport.abort()
            return
        self._open |= {writer, back}
        self._spawn(self._pass(reader, back, writer))
        self._spawn(self._pass(there, writer, back))

    def _spawn(self, work: Coroutine[object, object, None]) -> None:
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _pass(
        self,
        reader: asyncio.StreamReader,
        writer: asyncio.StreamWriter,
        other: asyncio.StreamWriter,
    ) -> None:
        with suppress(OSError):
            while data := await reader.read(_CHUNK):
                await self._flows.wait()
                writer.write(data)
                await writer.drain()
        # As a kernel does: the end of one side ends both.
        for each in (writer, other):
            each.transport.abort()
            self._open.discard(each)
