"""Sequences of requests, bodies, pauses and resets: no answer to another's request
(R45).

Each request shows the token of a subject of its own, and the gate, the product's, names
the subject in its answer. A model says which numbers must come back, in which order:
those up to the first request behind which bytes may follow that are no request. Bodies
are written as requests of another subject, as an attacker writes them.
"""

from __future__ import annotations

import asyncio
import random
import re
from typing import NamedTuple

import pytest

from tests.support.gatehouse_verifier import started
from tests.support.wire import FakeTransport
from verifier.wire.budgets import CHECKS_PER_TURN, KEPT_BYTES
from verifier.wire.protocol import GateProtocol
from verifier.wire.public_port import PublicPort

SHARE = 600
MOST = 40
_SUBJECTS = re.compile(rb"X-Auth-Subject: s-(\S+)\r\n")
_STATUSES = re.compile(rb"HTTP/1\.1 (\d{3}) ")


class ServedPort(NamedTuple):
    """The parts that all sequences share.

    Attributes:
        port: with the product's gate.
        credentials: each request's header line, by its number.
        smuggled: the request in an attacker's body; it must never be answered.
    """

    port: PublicPort
    credentials: list[bytes]
    smuggled: bytes


async def serve_port() -> ServedPort:
    verifier = await started()

    def credential(subject: str) -> bytes:
        return b"Authorization: Bearer %b\r\n" % verifier.issuer.mint(sub=subject)

    return ServedPort(
        PublicPort(verifier.gate, lambda _: True, 10, 0.0),
        [credential(f"s-{number}") for number in range(MOST)],
        b"GET /verify/envoy HTTP/1.1\r\nHost: v\r\n%b\r\n" % credential("s-smuggled"),
    )


class Piece(NamedTuple):
    """One request as it is sent, and the model's prediction for it.

    Attributes:
        sent: its bytes, a body's among them.
        status: of its answer.
        is_last: whether it must be the last that is answered.
    """

    sent: bytes
    status: int
    is_last: bool


def a_request(served: ServedPort, random: random.Random, number: int) -> Piece:
    smuggled = served.smuggled
    length = len(smuggled)
    chunk = b"%x\r\n%b\r\n0\r\n" % (length, smuggled)
    kinds: list[tuple[bytes, bytes, int, bool]] = [
        (b"", b"", 200, False),
        (b"", b"", 200, False),
        (b"", b"", 200, False),
        (b"Content-Length: 0\r\n", b"", 200, False),
        (b"Connection: keep-alive\r\n", b"", 200, False),
        (b"Upgrade: x\r\nConnection: Upgrade\r\n", b"", 200, False),
        (b"Connection: close\r\n", b"", 200, True),
        (b"Content-Length: %d\r\n" % length, smuggled, 200, True),
        (b"Content-Length: %d\r\n" % (length - 5), smuggled, 200, True),
        (b"Content-Length: 9\r\n", b"", 200, True),
        (b"Expect: 100-continue\r\nContent-Length: 9\r\n", b"", 200, True),
        (b"Transfer-Encoding: chunked\r\n", chunk + b"\r\n", 200, True),
        (b"Transfer-Encoding: chunked\r\n", chunk + b"X: a\r\n\r\n", 200, True),
        (b"Transfer-Encoding: chunked\r\n", chunk + smuggled, 200, True),
        (b"Transfer-Encoding: gzip\r\n", smuggled, 400, True),
        (b"Content-Length: 1\r\nContent-Length: 2\r\n", smuggled, 400, True),
        (b"X: a\nHost: b\r\n", b"", 400, True),
        (b" X: a\r\n", b"", 400, True),
    ]
    line, body, status, is_last = random.choice(kinds)
    target = random.choice((b"/verify/nginx", b"/verify/envoy/x"))
    credential = served.credentials[number]
    head = b"GET %b HTTP/1.1\r\nHost: v\r\n%b%b\r\n" % (target, line, credential)
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


async def run_one(served: ServedPort, random: random.Random) -> None:
    """Send one sequence and compare."""
    count = random.choice((1, 3, 6, MOST))
    pieces = [a_request(served, random, number) for number in range(count)]
    data = b"".join(piece.sent for piece in pieces)
    protocol = GateProtocol(served.port, asyncio.get_running_loop())
    transport = FakeTransport(protocol)
    transport.high = random.choice((10, 300, 65_536))
    protocol.connection_made(transport)
    # By the byte now and then: a request is a thousand of them.
    sizes = (1, 7, 40, 200) if random.random() < 0.02 else (200, 900, 5_000, 60_000)
    is_reset, at, most = random.random() < 0.1, 0, 0
    while at < len(data) and not transport.end:
        size = random.choice(sizes)
        most = max(most, len(data[at : at + size]))
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
    answered = _SUBJECTS.findall(transport.sent)
    if is_reset or (most > KEPT_BYTES and is_cut_short(transport.sent, len(found))):
        statuses, numbers = statuses[: len(found)], numbers[: len(answered)]
    assert (found, answered) == (statuses, numbers), data
    protocol.connection_lost(None)
    assert not served.port.connections


def is_cut_short(sent: bytes, answers: int) -> bool:
    """Return whether the answers end because more was read at once than is kept.

    Those of one turn are given, and one more that says that it is the last (R47).
    """
    last = sent[sent.rindex(b"HTTP/1.1 ") :]
    return answers > CHECKS_PER_TURN and b"\r\nConnection: close\r\n" in last


async def settle(transport: FakeTransport) -> None:
    """Give turns, with the peer reading, until reading is not paused or the end."""
    for _ in range(200):
        await asyncio.sleep(0)
        if transport.end or not transport.is_paused:
            return
        transport.take()
    raise AssertionError("reading stays paused")


@pytest.mark.proof
async def test_no_answer_is_given_to_another_request(proof_scale: int) -> None:
    """R45; 100,000 sequences at a scale of 170."""
    served = await serve_port()
    for seed in range(SHARE * proof_scale):
        try:
            await run_one(served, random.Random(seed))
        except AssertionError as error:
            raise AssertionError(f"seed {seed}") from error
