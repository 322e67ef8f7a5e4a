"""Sequences of requests, bodies, pauses and resets: no answer to another's request (R45).

Each request asks with a number of its own, and the gate answers with that number. A model
says which numbers must come back, in which order: those up to the first request behind
which bytes may follow that are no request. Bodies are written as requests of a forbidden
number, as an attacker writes them.
"""

from __future__ import annotations

import asyncio
import random
import re
from collections import Counter
from typing import Any, NamedTuple

import pytest

from tests.support.wire import FakeTransport
from verifier.answers import Answer
from verifier.wire.edge import Edge
from verifier.wire.protocol import GateProtocol

SHARE = 600
_NUMBERS = re.compile(rb"X-Number: (\S+)\r\n")
_STATUSES = re.compile(rb"HTTP/1\.1 (\d{3}) ")
#: What an attacker's body asks; it must never be answered.
_SMUGGLED = b"GET /verify/envoy/smuggled HTTP/1.1\r\nHost: v\r\n\r\n"


class Echo:
    """A gate that answers with the end of the target it was asked."""

    def __init__(self) -> None:
        self.posts: dict[bytes, Any] = {b"/verify/nginx": None}
        self.counts: Counter[str] = Counter()

    def answer(self, request: Any) -> Answer:
        number = request.target.rpartition(b"/")[2]
        head = b"HTTP/1.1 200 OK\r\nX-Number: %b\r\nContent-Length: 0\r\n\r\n" % number
        return Answer(200, head)


class Piece(NamedTuple):
    """One request as it is sent, and what the model says of it.

    Attributes:
        sent: its bytes, a body's among them.
        status: of its answer.
        is_last: whether it must be the last that is answered.
    """

    sent: bytes
    status: int
    is_last: bool


def a_request(random: random.Random, number: int) -> Piece:
    target = b"/verify/envoy/%d" % number
    length = len(_SMUGGLED)
    chunk = b"%x\r\n%b\r\n0\r\n" % (length, _SMUGGLED)
    kinds: list[tuple[bytes, bytes, int, bool]] = [
        (b"", b"", 200, False),
        (b"", b"", 200, False),
        (b"", b"", 200, False),
        (b"Content-Length: 0\r\n", b"", 200, False),
        (b"Connection: keep-alive\r\n", b"", 200, False),
        (b"Upgrade: x\r\nConnection: Upgrade\r\n", b"", 200, False),
        (b"Connection: close\r\n", b"", 200, True),
        (b"Content-Length: %d\r\n" % length, _SMUGGLED, 200, True),
        (b"Content-Length: %d\r\n" % (length - 5), _SMUGGLED, 200, True),
        (b"Content-Length: 9\r\n", b"", 200, True),
        (b"Expect: 100-continue\r\nContent-Length: 9\r\n", b"", 200, True),
        (b"Transfer-Encoding: chunked\r\n", chunk + b"\r\n", 200, True),
        (b"Transfer-Encoding: chunked\r\n", chunk + b"X: a\r\n\r\n", 200, True),
        (b"Transfer-Encoding: chunked\r\n", chunk + _SMUGGLED, 200, True),
        (b"Transfer-Encoding: gzip\r\n", _SMUGGLED, 400, True),
        (b"Content-Length: 1\r\nContent-Length: 2\r\n", _SMUGGLED, 400, True),
        (b"X: a\nHost: b\r\n", b"", 400, True),
        (b" X: a\r\n", b"", 400, True),
    ]
    line, body, status, is_last = random.choice(kinds)
    head = b"GET %b HTTP/1.1\r\nHost: v\r\n%b\r\n" % (target, line)
    return Piece(head + body, status, is_last)


def expected(pieces: list[Piece]) -> tuple[list[int], list[bytes]]:
    """Return the statuses and numbers that must come back."""
    statuses, numbers = [], []
    for number, piece in enumerate(pieces):
        statuses.append(piece.status)
        if piece.status == 200:
            numbers.append(b"%d" % number)
        if piece.is_last:
            break
    return statuses, numbers


async def run_one(random: random.Random, edge: Edge) -> None:
    """Send one sequence and compare."""
    pieces = [a_request(random, n) for n in range(random.choice((1, 3, 6, 40)))]
    data = b"".join(piece.sent for piece in pieces)
    protocol = GateProtocol(edge, asyncio.get_running_loop())
    transport = FakeTransport(protocol)
    transport.high = random.choice((10, 300, 65_536))
    protocol.connection_made(transport)
    is_reset, at = random.random() < 0.1, 0
    while at < len(data) and not transport.end:
        size = random.choice((1, 7, 40, 200, 5_000))
        transport.reads = random.random() < 0.8
        protocol.data_received(data[at : at + size])
        at += size
        await settle(transport)
        if is_reset and random.random() < 0.1:
            protocol.connection_lost(ConnectionResetError())
            break
    await settle(transport)
    statuses, numbers = expected(pieces)
    found = [int(status) for status in _STATUSES.findall(transport.sent)]
    answered = _NUMBERS.findall(transport.sent)
    if is_reset:
        statuses, numbers = statuses[: len(found)], numbers[: len(answered)]
    assert (found, answered) == (statuses, numbers), data
    protocol.connection_lost(None)
    assert not edge.connections


async def settle(transport: FakeTransport) -> None:
    """Give turns, with the peer reading now and then, until reading is not paused."""
    for _ in range(200):
        await asyncio.sleep(0)
        if not transport.is_paused:
            return
        if not transport.end:
            transport.take()
    raise AssertionError("reading stays paused")


@pytest.mark.proof
async def test_no_answer_is_given_to_another_request(proof_scale: int) -> None:
    """R45; 100,000 sequences at a scale of 170."""
    gate: Any = Echo()
    edge = Edge(gate, lambda _: True, 10, 0.0)
    for seed in range(SHARE * proof_scale):
        try:
            await run_one(random.Random(seed), edge)
        except AssertionError as error:
            raise AssertionError(f"seed {seed}") from error
