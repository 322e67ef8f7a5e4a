"""Every state and event of the public port's table, in raw bytes (R43 to R47)."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Callable

import pytest

from tests.support.gatehouse_verifier import started
from tests.support.wire import FakeTransport
from verifier.wire import budgets
from verifier.wire.connections import trust_peers
from verifier.wire.protocol import GateProtocol
from verifier.wire.public_port import PublicPort
from verifier.wire.states import State

CHECK = b"GET /verify/nginx HTTP/1.1\r\nHost: v\r\n\r\n"
HALF = CHECK[:30]
CLOSES = b"Connection: close\r\n\r\n"


class Talk:
    """One connection with its transport, and a clock that the test sets."""

    def __init__(self, port: PublicPort) -> None:
        self.port = port
        self.protocol = GateProtocol(port, asyncio.get_running_loop())
        self.transport = FakeTransport(self.protocol)
        self.protocol.connection_made(self.transport)

    @property
    def state(self) -> State:
        return self.protocol.state

    @property
    def statuses(self) -> list[int]:
        found = re.findall(rb"HTTP/1\.1 (\d{3}) ", self.transport.sent)
        return [int(status) for status in found]

    async def say(self, *pieces: bytes) -> None:
        """Send the pieces, a turn of the loop behind each."""
        for piece in pieces:
            self.protocol.data_received(piece)
            await asyncio.sleep(0)

    async def pass_time(self, seconds: float) -> None:
        await self.port.sweep(self.port.tick + seconds)

    def block(self) -> None:
        """Let the peer leave unread all that is sent, until writing is paused."""
        self.transport.reads = False
        self.transport.high = 10
        self.protocol.data_received(CHECK)
        self.protocol.send()
        assert self.state is State.WRITE_BLOCKED


@pytest.fixture
async def talk() -> Talk:
    gate = (await started()).gate
    return Talk(PublicPort(gate, trust_peers(["127.0.0.0/8"]), 10, 0.0))


async def bring(talk: Talk, state: State) -> None:
    """Bring the connection into the state."""
    if state is State.YIELDED:
        talk.protocol.data_received(CHECK * (budgets.CHECKS_PER_TURN + 2))
    elif state is State.WRITE_BLOCKED:
        talk.block()
    elif state is State.DRAINING:
        await talk.say(HALF)
        talk.protocol.shutdown()
    elif state is State.DISCARDING:
        await talk.say(b"\n")
    elif state is State.CLOSING:
        talk.protocol.shutdown()
    elif state is State.ENDED:
        talk.protocol.abort()
    assert talk.state is state


Event = Callable[[Talk], object]
EVENTS: dict[str, Event] = {
    "data": lambda talk: talk.protocol.data_received(CHECK),
    "half": lambda talk: talk.protocol.data_received(HALF),
    "fault": lambda talk: talk.protocol.data_received(b"\x16\x03\x01"),
    "eof": lambda talk: talk.protocol.eof_received(),
    "pause": lambda talk: talk.protocol.pause_writing(),
    "resume": lambda talk: talk.protocol.resume_writing(),
    "deadline": lambda talk: talk.protocol.expire(),
    "last answer": lambda talk: talk.protocol.answer_once(),
    "shutdown": lambda talk: talk.protocol.shutdown(),
    "abort": lambda talk: talk.protocol.abort(),
    "lost": lambda talk: talk.protocol.connection_lost(None),
}
H, Y, W, R, D, C, E = (
    State.HEAD,
    State.YIELDED,
    State.WRITE_BLOCKED,
    State.DRAINING,
    State.DISCARDING,
    State.CLOSING,
    State.ENDED,
)
#: The state after each event, in the order of the columns of the module's table.
TABLE = {
    "data": (H, Y, W, D, D, C, E),
    "half": (H, Y, W, D, D, C, E),
    "fault": (D, Y, W, D, D, C, E),
    "eof": (C, C, C, C, C, C, E),
    "pause": (W, W, W, R, D, C, E),
    "resume": (H, Y, H, R, D, C, E),
    "deadline": (C, E, E, D, E, E, E),
    "last answer": (R, Y, W, R, D, C, E),
    "shutdown": (C, D, C, R, D, C, E),
    "abort": (E, E, E, E, E, E, E),
    "lost": (E, E, E, E, E, E, E),
}


@pytest.mark.parametrize(
    ("state", "event", "after"),
    [
        pytest.param(state, event, after, id=f"{state.value}-{event}")
        for event, row in TABLE.items()
        for state, after in zip((H, Y, W, R, D, C, E), row, strict=True)
    ],
)
async def test_table(talk: Talk, state: State, event: str, after: State) -> None:
    await bring(talk, state)
    EVENTS[event](talk)
    assert talk.state is after


# --- data and heads -------------------------------------------------------------------


async def test_answers_of_one_read_leave_in_one_write(talk: Talk) -> None:
    await talk.say(CHECK * 3)
    assert (talk.statuses, talk.transport.writes) == ([401] * 3, 1)


async def test_bytes_one_by_one_are_the_same_request(talk: Talk) -> None:
    await talk.say(*[bytes([byte]) for byte in CHECK * 2])
    assert (talk.statuses, talk.state) == ([401, 401], H)


async def test_garbage_behind_a_check_is_answered_behind_it(talk: Talk) -> None:
    await talk.say(CHECK + b"\x00garbage")
    assert (talk.statuses, talk.state) == ([401, 400], D)


async def test_any_other_target_is_404_and_keeps_the_connection(talk: Talk) -> None:
    await talk.say(CHECK.replace(b"/verify/nginx", b"/x"), CHECK)
    assert talk.statuses == [404, 401]


def head(*lines: bytes, start: bytes = b"GET /verify/nginx HTTP/1.1") -> bytes:
    return b"\r\n".join([start, *lines, b"", b""])


FAULTS = {
    "no-host": (head(), 400),
    "two-hosts": (head(b"Host: v", b"Host: v"), 400),
    "bad-host": (head(b"Host: a b"), 400),
    "folding": (head(b"Host: v", b"X: a", b" b"), 400),
    "bare-lf": (b"GET /verify/nginx HTTP/1.1\nHost: v\n\n", 400),
    "bare-cr": (head(b"Host: v", b"X: a\rb"), 400),
    "empty-line-first": (b"\r\n" + CHECK, 400),
    "preface": (b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", 400),
    "http-2": (head(b"Host: v", start=b"GET /verify/nginx HTTP/2.0"), 505),
    "http-0.9-kept": (
        head(
            b"Host: v", b"Connection: keep-alive", start=b"GET /verify/nginx HTTP/0.9"
        ),
        505,
    ),
    "fragment": (head(b"Host: v", start=b"GET /verify/envoy/a#/../b HTTP/1.1"), 400),
    "not-ascii": (head(b"Host: v", start=b"GET /verify/envoy/\xc3 HTTP/1.1"), 400),
    "both-framings": (
        head(b"Host: v", b"Content-Length: 1", b"Transfer-Encoding: chunked"),
        400,
    ),
    "lengths-differ": (
        head(b"Host: v", b"Content-Length: 1", b"Content-Length: 2"),
        400,
    ),
    "length-list": (head(b"Host: v", b"Content-Length: 1, 1"), 400),
    "length-signed": (head(b"Host: v", b"Content-Length: +1"), 400),
    "coding-unknown": (head(b"Host: v", b"Transfer-Encoding: gzip"), 400),
    "coding-twice": (head(b"Host: v", b"Transfer-Encoding: chunked, chunked"), 400),
    "coding-in-1.0": (
        head(b"Transfer-Encoding: chunked", start=b"GET /verify/nginx HTTP/1.0"),
        400,
    ),
    "long-target": (
        head(
            b"Host: v",
            start=b"GET /verify/envoy/" + b"a" * budgets.TARGET_BYTES + b" HTTP/1.1",
        ),
        414,
    ),
    "many-headers": (head(b"Host: v", *[b"X: a"] * budgets.HEADERS), 431),
    "large": (head(b"Host: v", b"X: " + b"a" * budgets.HEAD_BYTES), 431),
    "endless": (b"GET /verify/nginx?" + b"a" * budgets.HEAD_BYTES, 431),
}


@pytest.mark.parametrize(("sent", "status"), FAULTS.values(), ids=FAULTS)
@pytest.mark.parametrize("size", [1, 3, 1_000_000])
async def test_faults_are_refused_and_nothing_behind_is_read(
    talk: Talk, sent: bytes, status: int, size: int
) -> None:
    """R44; the answer is the same however the bytes are cut."""
    await talk.say(CHECK)
    data = sent + CHECK
    await talk.say(*[data[at : at + size] for at in range(0, len(data), size)])
    assert talk.statuses == [401, status]
    assert talk.transport.sent.endswith(CLOSES)
    assert talk.transport.has_eof


async def test_head_of_exactly_the_budget_is_answered(talk: Talk) -> None:
    padding = budgets.HEAD_BYTES - len(head(b"Host: v", b"X: "))
    await talk.say(head(b"Host: v", b"X: " + b"a" * padding))
    assert talk.statuses == [401]
    await talk.say(head(b"Host: v", b"X: " + b"a" * (padding + 1)))
    assert talk.statuses == [401, 431]


# --- framing (R45) --------------------------------------------------------------------


@pytest.mark.parametrize(
    "line",
    [
        b"Content-Length: 7",
        b"Transfer-Encoding: chunked",
        b"Trailer: X",
        b"Expect: 100-continue",
    ],
)
@pytest.mark.parametrize("target", [b"/verify/nginx", b"/other"])
async def test_check_that_may_have_a_body_is_the_last(
    talk: Talk, line: bytes, target: bytes
) -> None:
    """An attacker's body was the next check: a refused user got 200."""
    await talk.say(head(b"Host: v", line, start=b"GET " + target + b" HTTP/1.1"), CHECK)
    assert len(talk.statuses) == 1
    assert CLOSES in talk.transport.sent
    assert (talk.state, talk.transport.has_eof) == (D, True)


async def test_connect_is_the_last(talk: Talk) -> None:
    await talk.say(CHECK.replace(b"GET", b"CONNECT"), CHECK)
    assert (len(talk.statuses), talk.state) == (1, D)


@pytest.mark.parametrize("zeros", [1, 5_000])
async def test_length_of_nothing_keeps_the_connection(talk: Talk, zeros: int) -> None:
    """`int` refuses a number of more than 4,300 digits."""
    await talk.say(head(b"Host: v", b"Content-Length: " + b"0" * zeros), CHECK)
    assert (talk.statuses, talk.state) == ([401, 401], H)


async def test_discarding_has_a_budget_of_bytes(talk: Talk) -> None:
    await talk.say(head(b"Host: v", b"Transfer-Encoding: chunked"))
    await talk.say(b"a" * budgets.DISCARD_BYTES)
    assert talk.transport.end == ""
    await talk.say(b"a")
    assert talk.transport.end == "abort"
    assert talk.port.faults["excess"] == 1


async def test_discarding_has_a_budget_of_time(talk: Talk) -> None:
    await talk.say(head(b"Host: v", b"Content-Length: 9"))
    await talk.pass_time(budgets.DISCARD_TIME)
    assert talk.transport.end == ""
    await talk.pass_time(0.5)
    assert talk.transport.end == "abort"


async def test_bytes_read_with_the_last_request_do_not_prevent_its_answer(
    talk: Talk,
) -> None:
    await talk.say(head(b"Host: v", b"Content-Length: 9") + b"a" * 100_000)
    assert (talk.statuses, talk.transport.end) == ([401], "")


async def test_the_next_answer_is_the_last_once_a_drain_begins(talk: Talk) -> None:
    """R60: at a stop every kept connection was reset once."""
    await talk.say(CHECK)
    talk.protocol.answer_once()
    assert CLOSES not in talk.transport.sent
    await talk.say(CHECK + CHECK)
    assert talk.statuses == [401, 401]
    assert talk.transport.sent.endswith(CLOSES)


async def test_kept_request_is_the_last_once_a_drain_begins(
    talk: Talk,
) -> None:
    await bring(talk, State.YIELDED)
    talk.protocol.answer_once()
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    assert len(talk.statuses) == budgets.CHECKS_PER_TURN + 1
    assert talk.transport.sent.endswith(CLOSES)


async def test_a_blocked_peer_gets_one_more_answer_once_a_drain_begins(
    talk: Talk,
) -> None:
    talk.block()
    talk.protocol.answer_once()
    talk.transport.reads = True
    talk.protocol.resume_writing()
    assert talk.state is State.DRAINING
    await talk.say(CHECK)
    assert talk.transport.sent.endswith(CLOSES)


async def test_new_connection_during_a_drain_gets_one_answer(
    talk: Talk,
) -> None:
    protocol = GateProtocol(talk.port, asyncio.get_running_loop())
    protocol.answer_once()
    transport = FakeTransport(protocol)
    protocol.connection_made(transport)
    protocol.data_received(CHECK)
    await asyncio.sleep(0)
    assert transport.sent.endswith(CLOSES)


async def test_an_idle_connection_closes_at_the_end_of_a_drain(talk: Talk) -> None:
    talk.protocol.answer_once()
    talk.protocol.shutdown()
    assert talk.state is State.CLOSING
