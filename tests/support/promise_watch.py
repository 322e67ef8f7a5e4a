"""Holds verifiers to the issuer's promise: after `confirmed`, no 200.

Asks every gate about every token all the time over raw HTTP, and notes when each
request was sent and what it was answered. Runs on an event loop in a thread of its own.
"""

from __future__ import annotations

import asyncio
import contextlib
import random
import threading
import time
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

_PACE = 0.008
#: Requests to one gate about one token that may wait for their answers.
_MAX_OPEN = 2
#: Dead tokens asked about in each round: the newest, and some of the others.
_NEWEST, _OTHERS = 8, 3
_PATIENCE = 120.0


class Asked(NamedTuple):
    """A request and its answer; times are `time.monotonic()` seconds.

    Attributes:
        gate: the gate that was asked.
        token: the name of the token.
        sent_at: just before the request was written.
        answered_at: when the whole answer was there.
        status: of the answer.
    """

    gate: str
    token: str
    sent_at: float
    answered_at: float
    status: int


@dataclass
class _Token:
    name: str
    request: bytes
    promised_at: float | None = None
    open: Counter[str] = field(default_factory=Counter)


@dataclass
class _Gate:
    name: str
    address: int | Path
    idle: list[tuple[asyncio.StreamReader, asyncio.StreamWriter]] = field(
        default_factory=list
    )


class PromiseWatch:
    """Asks while the block lasts.

    Args:
        gates: verifiers by name, each with its loopback port or unix socket.

    Attributes:
        asked: every request that was answered.
    """

    def __init__(self, gates: Mapping[str, int | Path]) -> None:
        self.asked: list[Asked] = []
        self._gates = [_Gate(name, address) for name, address in gates.items()]
        self._tokens: dict[str, _Token] = {}
        self._loop = asyncio.new_event_loop()
        self._is_over = False
        self._asking: set[asyncio.Task[None]] = set()

    def __enter__(self) -> PromiseWatch:
        self._thread = threading.Thread(target=self._run)
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._is_over = True
        self._thread.join()

    def watch(self, name: str, token: str) -> None:
        """Ask about this token from now on."""
        head = f"GET /verify/nginx HTTP/1.1\r\nHost: a\r\nAuthorization: Bearer {token}"
        self._tokens[name] = _Token(name, f"{head}\r\n\r\n".encode())

    def promise(self, name: str) -> float:
        """Note that the token was just confirmed dead; return the time it counts
        from.
        """
        token = self._tokens[name]
        # Waiting requests were sent before: there is room for new requests at once.
        token.open = Counter()
        token.promised_at = time.monotonic()
        return token.promised_at

    def violations(self) -> list[Asked]:
        """Return each 200 to a request sent after the token was confirmed dead."""
        return [
            asked
            for asked in list(self.asked)
            if asked.status == 200 and self._was_promised(asked)
        ]

    def revived(self) -> list[Asked]:
        """Return each 200 to a request sent after the same gate had refused the
        token.
        """
        refused: dict[tuple[str, str], float] = {}
        for asked in list(self.asked):
            if asked.status == 401:
                key = asked.gate, asked.token
                known = refused.get(key, asked.answered_at)
                refused[key] = min(known, asked.answered_at)
        return [
            asked
            for asked in list(self.asked)
            if asked.status == 200
            and asked.sent_at > refused.get((asked.gate, asked.token), float("inf"))
        ]

    def after_promises(self, gate: str = "") -> Counter[int]:
        """Count the answers, by status, to requests sent after a promise."""
        return Counter(
            asked.status
            for asked in list(self.asked)
            if self._was_promised(asked) and gate in {"", asked.gate}
        )

    def statuses(self, gate: str, token: str, since: float) -> Counter[int]:
        """Count a gate's answers about a token to requests sent after `since`."""
        return Counter(
            asked.status
            for asked in reversed(self.asked[-50_000:])
            if (asked.gate, asked.token) == (gate, token) and asked.sent_at > since
        )

    def newest(self, gate: str, token: str) -> int | None:
        """Return a gate's last answer about a token."""
        for asked in reversed(self.asked[-50_000:]):
            if (asked.gate, asked.token) == (gate, token):
                return asked.status
        return None

    def _was_promised(self, asked: Asked) -> bool:
        promised_at = self._tokens[asked.token].promised_at
        return promised_at is not None and asked.sent_at > promised_at

    def _run(self) -> None:
        with contextlib.closing(self._loop):
            self._loop.run_until_complete(self._ask_for_ever())

    async def _ask_for_ever(self) -> None:
        while not self._is_over:
            for token in self._round():
                for gate in self._gates:
                    if token.open[gate.name] < _MAX_OPEN:
                        task = asyncio.create_task(self._ask(gate, token, token.open))
                        self._asking.add(task)
                        task.add_done_callback(self._asking.discard)
                await asyncio.sleep(_PACE)
            await asyncio.sleep(_PACE)
        for task in self._asking:
            task.cancel()
        await asyncio.gather(*self._asking, return_exceptions=True)
        for gate in self._gates:
            for _, writer in gate.idle:
                writer.close()
        for _ in range(3):  # turns in which the loop closes them
            await asyncio.sleep(0)

    def _round(self) -> Iterator[_Token]:
        tokens = list(self._tokens.values())
        dead = [token for token in tokens if token.promised_at is not None]
        older = dead[:-_NEWEST]
        yield from (token for token in tokens if token.promised_at is None)
        yield from dead[-_NEWEST:]
        yield from random.sample(older, min(len(older), _OTHERS))

    async def _ask(self, gate: _Gate, token: _Token, is_open: Counter[str]) -> None:
        is_open[gate.name] += 1
        try:
            async with asyncio.timeout(_PATIENCE):
                reader, writer = gate.idle.pop() if gate.idle else await _open(gate)
                try:
                    sent_at = time.monotonic()
                    writer.write(token.request)
                    status = await _read_status(reader)
                except BaseException:
                    writer.close()
                    raise
            answered_at = time.monotonic()
            gate.idle.append((reader, writer))
            asked = Asked(gate.name, token.name, sent_at, answered_at, status)
            self.asked.append(asked)
        except (OSError, EOFError, TimeoutError):
            # Away: that is no 200. Not again at once.
            await asyncio.sleep(10 * _PACE)
        finally:
            is_open[gate.name] -= 1


async def _open(gate: _Gate) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    if isinstance(gate.address, Path):
        return await asyncio.open_unix_connection(gate.address)
    return await asyncio.open_connection("127.0.0.1", gate.address)


async def _read_status(reader: asyncio.StreamReader) -> int:
    head = await reader.readuntil(b"\r\n\r\n")
    first, *lines = head.decode("latin-1").lower().split("\r\n")
    fields = dict(line.split(": ", 1) for line in lines if ": " in line)
    await reader.readexactly(int(fields.get("content-length", "0")))
    return int(first.split()[1])
