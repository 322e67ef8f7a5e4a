"""Requests with one token over several connections, to look for one that passes."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from contextlib import suppress
from typing import Final

#: Connections of each kind. Each worker or thread of a gateway gets some of them.
KEPT: Final = 4
NEW: Final = 4
#: Seconds for one answer: longer than a gateway is stopped.
_PATIENCE: Final = 40.0

Connection = tuple[asyncio.StreamReader, asyncio.StreamWriter]


class Prober:
    """One client with connections that it keeps.

    Args:
        port: of the gateway.
    """

    def __init__(self, port: int) -> None:
        self._port = port
        self._kept: list[Connection | None] = [None] * KEPT

    async def is_let_through(self, token: str) -> bool:
        """Ask once over each kept connection; return whether all answered 200."""
        return await self._ask_kept(token) == [200] * KEPT

    async def ask(
        self, token: str, begun: Sequence[Begun] = ()
    ) -> dict[str, list[int]]:
        """Ask over all kinds of connections at once; return the statuses of each."""
        kept, new, ended = await asyncio.gather(
            self._ask_kept(token),
            asyncio.gather(*(self._ask_new(token) for _ in range(NEW))),
            asyncio.gather(*(each.end() for each in begun)),
        )
        return {"kept": kept, "new": new, "begun before": ended}

    async def begin(self, token: str) -> list[Begun]:
        """Send the first half of a request; none when the gateway does not listen."""
        with suppress(OSError):
            return [Begun(*await self._open(), token)]
        return []

    def close(self) -> None:
        """Close the connections."""
        for connection in self._kept:
            if connection is not None:
                connection[1].close()

    async def _ask_kept(self, token: str) -> list[int]:
        return await asyncio.gather(*(self._ask_one(n, token) for n in range(KEPT)))

    async def _ask_one(self, number: int, token: str) -> int:
        """Return the status; 0 without an answer, and the connection is lost."""
        connection = self._kept[number]
        try:
            if connection is None:
                connection = self._kept[number] = await self._open()
            return await _exchange(*connection, _request(token))
        except (OSError, asyncio.IncompleteReadError, TimeoutError):
            if connection is not None:
                connection[1].close()
            self._kept[number] = None
            return 0

    async def _ask_new(self, token: str) -> int:
        try:
            reader, writer = await self._open()
        except OSError:
            return 0
        try:
            return await _exchange(reader, writer, _request(token))
        except (OSError, asyncio.IncompleteReadError, TimeoutError):
            return 0
        finally:
            writer.close()

    async def _open(self) -> Connection:
        return await asyncio.open_connection("127.0.0.1", self._port)


class Begun:
    """A request whose first bytes were sent before the revocation."""

    def __init__(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, token: str
    ) -> None:
        self._reader = reader
        self._writer = writer
        request = _request(token)
        writer.write(request[:_FIRST])
        self._rest = request[_FIRST:]

    async def end(self) -> int:
        """Send the rest; return the status, 0 without an answer."""
        try:
            return await _exchange(self._reader, self._writer, self._rest)
        except (OSError, asyncio.IncompleteReadError, TimeoutError):
            return 0
        finally:
            self._writer.close()


#: Bytes of a request that are enough for Envoy to note its time.
_FIRST: Final = 20


async def _exchange(
    reader: asyncio.StreamReader, writer: asyncio.StreamWriter, data: bytes
) -> int:
    """Send the bytes and read the answer, which has a length; return its status."""
    async with asyncio.timeout(_PATIENCE):
        writer.write(data)
        head = (await reader.readuntil(b"\r\n\r\n")).lower()
        _, found, rest = head.partition(b"content-length:")
        if found:
            await reader.readexactly(int(rest.split(b"\r\n")[0]))
    return int(head.split()[1])


def _request(token: str) -> bytes:
    head = "GET /orders HTTP/1.1\r\nHost: a\r\nAuthorization: Bearer "
    return f"{head}{token}\r\n\r\n".encode()
