"""Followers of the feed that keep its protocol, many in one process.

Like a verifier, each takes the snapshot, acknowledges its entries with its next
request, and is held while there is no news; it checks no tokens. The bench starts the
program. On SIGTERM it writes the time at which each follower received each entry, one
JSON list `[key, seconds]` in a line, by the machine's monotonic clock.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import os
import signal
import time
import uuid
from pathlib import Path
from typing import Any

import orjson

from loadtests.bench_issuer.client import Connections
from loadtests.support.raw_http import send
from shared.feed import (
    FOLLOWER_HEADER,
    FOLLOWER_STALENESS_HEADER,
    MAX_PAGE_ENTRIES,
)

_HOLD = 5
_STALENESS = 11


class Follower:
    """One follower on a connection of its own.

    Args:
        port: the issuer's.
        token: the feed credential.
        received: takes key and time of each entry.
    """

    def __init__(
        self, port: int, token: str, received: list[tuple[str, float]]
    ) -> None:
        self._port = port
        self._connections = Connections(port)
        self._headers = (
            ("Authorization", f"Bearer {token}"),
            (FOLLOWER_HEADER, str(uuid.uuid4())),
            (FOLLOWER_STALENESS_HEADER, str(_STALENESS)),
        )
        lines = "".join(f"{name}: {value}\r\n" for name, value in self._headers)
        self._head = f"HTTP/1.1\r\nHost: 127.0.0.1\r\n{lines}\r\n"
        self._received = received

    async def start(self) -> None:
        """Take the snapshot."""
        target = "/revocations/snapshot"
        answer = await asyncio.to_thread(send, self._port, "GET", target, self._headers)
        page = answer.json()
        self._epoch, self._position = page["epoch"], page["to"]

    async def follow(self) -> None:
        """Follow for ever."""
        while True:
            page = await self._ask(
                f"/revocations?epoch={self._epoch}&after={self._position}"
                f"&wait={_HOLD}&limit={MAX_PAGE_ENTRIES}"
            )
            now = time.monotonic()
            self._received.extend((entry[2], now) for entry in page["entries"])
            self._position = page["to"]

    async def _ask(self, target: str) -> dict[str, Any]:
        answer = await self._connections.send(f"GET {target} {self._head}".encode())
        if answer.status != 200:
            raise SystemExit(f"the feed answered {answer.status}")
        page: dict[str, Any] = orjson.loads(answer.body)
        return page


async def run(port: int, count: int, received: list[tuple[str, float]]) -> None:
    """Follow until SIGTERM."""
    token = os.environ["ISSUER_FEED_TOKEN"]
    followers = [Follower(port, token, received) for _ in range(count)]
    await asyncio.gather(*(follower.start() for follower in followers))
    following = asyncio.gather(*(follower.follow() for follower in followers))
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, following.cancel)
    print("following", flush=True)
    with contextlib.suppress(asyncio.CancelledError):
        await following


def main() -> None:
    """Run with the command line's options."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--count", type=int, required=True)
    parser.add_argument("--out", type=Path, required=True)
    options = parser.parse_args()
    received: list[tuple[str, float]] = []
    asyncio.run(run(options.port, options.count, received))
    lines = (json.dumps(list(pair)) + "\n" for pair in received)
    options.out.write_text("".join(lines))


if __name__ == "__main__":
    main()
