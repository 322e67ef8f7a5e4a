"""A small HTTP client that costs little: the load shares its machine with the
server.
"""

from __future__ import annotations

import asyncio
import json
import time
from dataclasses import dataclass
from typing import Any

_TIMEOUT_SECONDS = 60.0


@dataclass(frozen=True, slots=True)
class Answer:
    """An answer; `seconds` from sending the request to having read all of it."""

    status: int
    body: bytes
    seconds: float

    def json(self) -> Any:
        return json.loads(self.body)


class Connections:
    """Keeps connections to one port open and hands out one that is free."""

    def __init__(self, port: int) -> None:
        self._port = port
        self._free: list[tuple[asyncio.StreamReader, asyncio.StreamWriter]] = []

    async def post(self, path: str, body: dict[str, str]) -> Answer:
        """Send a JSON body and return the answer.

        Raises:
            OSError: when there is no answer.
            TimeoutError: when there is none within a minute.
        """
        data = json.dumps(body).encode()
        head = (
            f"POST {path} HTTP/1.1\r\nHost: 127.0.0.1:{self._port}\r\n"
            f"Content-Type: application/json\r\nContent-Length: {len(data)}\r\n\r\n"
        )
        return await self.send(head.encode() + data)

    async def send(self, request: bytes) -> Answer:
        """Send the bytes of a request and return the answer.

        Raises:
            OSError: when there is no answer.
            TimeoutError: when there is none within a minute.
        """
        reader, writer = self._free.pop() if self._free else await self._open()
        began = time.perf_counter()
        try:
            async with asyncio.timeout(_TIMEOUT_SECONDS):
                writer.write(request)
                status, read = await _read_answer(reader)
        except BaseException:
            writer.close()
            raise
        self._free.append((reader, writer))
        return Answer(status, read, time.perf_counter() - began)

    def close(self) -> None:
        for _, writer in self._free:
            writer.close()
        self._free.clear()

    async def _open(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        return await asyncio.open_connection("127.0.0.1", self._port)


async def _read_answer(reader: asyncio.StreamReader) -> tuple[int, bytes]:
    try:
        head = await reader.readuntil(b"\r\n\r\n")
    except asyncio.IncompleteReadError:
        raise ConnectionError("the server closed the connection") from None
    first, *lines = head.decode("latin-1").split("\r\n")
    fields = (line.partition(":") for line in lines if line)
    headers = {name.lower(): value.strip() for name, _, value in fields}
    body = await reader.readexactly(int(headers.get("content-length", "0")))
    return int(first.split()[1]), body
