"""The limits of one connection, and of a port: every budget of `shared.serving`.

Each test names the budget it holds (R40, R44, R46). The ports run in a thread of their
own with uvloop, as the programs do.
"""

from __future__ import annotations

import contextlib
import gc
import socket
import time
from pathlib import Path

import pytest

from shared.serving.connection import Connection
from shared.serving.limits import Limits
from shared.serving.requests import Requests
from tests.support.limited_port import (
    GET,
    LARGE,
    LAST,
    SOON,
    Application,
    chunked,
    connected,
    padded,
    post,
    read_all,
    served,
)
from tests.support.processes import PATIENCE, wait_until
from tests.support.served_port import ServedPort, serving
from tests.support.smuggling import exchange, statuses, talk

# --- the head -----------------------------------------------------------------------


def test_head_bytes() -> None:
    with served() as (port, _):
        assert exchange(port.address, padded(16_384)) == ([200], True)
        assert exchange(port.address, padded(16_385)) == ([431], True)
        # Refused at its limit, not at its end: the client gets the words.
        assert exchange(port.address, padded(16_400)[:-4]) == ([431], True)


def test_head_that_never_ends_leaves_nothing_in_the_parser() -> None:
    with served() as (port, _):
        assert exchange(port.address, b"GET /" + b"a" * 30_000) == ([414], True)
        opening = b"GET /x HTTP/1.1\r\nX"
        assert exchange(port.address, opening + b"a" * 30_000) == ([431], True)


def test_headers_count() -> None:
    lines = [b"X-%d: a" % number for number in range(98)]
    with served() as (port, _):
        most = LAST[:-2] + b"\r\n".join([*lines, b"", b""])
        assert exchange(port.address, most) == ([200], True)
        more = LAST[:-2] + b"\r\n".join([*lines, b"One: more", b"", b""])
        assert exchange(port.address, more) == ([431], True)


def test_target_bytes() -> None:
    with served() as (port, _):
        target = b"/x?" + b"a" * 8_189
        most = LAST.replace(b"/x", target)
        assert exchange(port.address, most) == ([200], True)
        assert exchange(port.address, most.replace(b"?", b"?b")) == ([414], True)


@pytest.mark.parametrize(
    ("sent", "words"), [(b"", []), (b"GET /x HT", [408]), (GET + b"G", [200, 408])]
)
def test_head_time(sent: bytes, words: list[int]) -> None:
    with served(head_time=SOON) as (port, _):
        assert exchange(port.address, sent) == (words, True)


def test_dripping_does_not_extend_the_head_time() -> None:
    """A byte now and then comes all the time; the whole time is from the first one."""
    with (
        served(head_time=SOON, idle_time=PATIENCE) as (port, _),
        connected(port) as way,
    ):
        begun = time.monotonic()
        way.sendall(GET + b"GET /x HTTP/1.1\r\nX: ")
        way.settimeout(SOON / 20)
        came = b""
        with contextlib.suppress(ConnectionError):
            while b"408" not in came and time.monotonic() < begun + 60 * SOON:
                way.sendall(b"a")
                with contextlib.suppress(TimeoutError):
                    came += way.recv(65_536)
        assert statuses(came) == [200, 408]


def test_idle_time() -> None:
    with served(idle_time=SOON) as (port, _):
        assert exchange(port.address, GET) == ([200], True)


# --- the body -----------------------------------------------------------------------


def test_body_bytes_announced() -> None:
    with served(body_bytes=1_000) as (port, _):
        line = b"Content-Length: 1001"
        assert exchange(port.address, post(b"", line)) == ([413], True)


def test_body_bytes_as_they_come() -> None:
    """Also where no route limits it: the application never has more of it."""
    chunk = b"200\r\n" + b"a" * 512 + b"\r\n"
    with served(body_bytes=40_000) as (port, _):
        fits = chunked(chunk * 78 + b"0\r\n\r\n")
        assert exchange(port.address, fits) == ([200], True)
        came, is_ended = talk(port.address, chunked(chunk * 79 + b"0\r\n\r\n"))
        assert (statuses(came), is_ended) == ([413], True)


@pytest.mark.parametrize("came", [b"", b"abc"])
def test_body_time(came: bytes) -> None:
    with served(body_time=SOON, body_rate=1_000_000) as (port, _):
        sent = post(came, b"Content-Length: 9")
        assert exchange(port.address, sent) == ([408], True)


def test_body_rate_does_not_give_a_dripping_body_more_time() -> None:
    with (
        served(body_time=SOON, body_rate=1_000_000) as (port, _),
        connected(port) as way,
    ):
        begun = time.monotonic()
        way.sendall(post(b"", b"Content-Length: 60000"))
        way.settimeout(SOON / 20)
        came = b""
        with contextlib.suppress(ConnectionError):
            while not came and time.monotonic() < begun + 60 * SOON:
                way.sendall(b"a")
                with contextlib.suppress(TimeoutError):
                    came += way.recv(65_536)
        assert statuses(came) == [408]


def test_body_time_is_longer_for_bodies_at_the_rate() -> None:
    with served(body_time=SOON, body_rate=10_000) as (port, _), connected(port) as way:
        way.sendall(post(b"a" * 30_000, b"Content-Length: 30001"))
        way.settimeout(3 * SOON)
        with pytest.raises(TimeoutError):
            way.recv(1)
        way.sendall(b"a")
        way.settimeout(PATIENCE)
        assert way.recv(65_536).startswith(b"HTTP/1.1 200 ")


def test_bodies_in_all() -> None:
    with served(bodies_in_all=50_000) as (port, _), contextlib.ExitStack() as stack:
        opening = post(b"a" * 20_000, b"Content-Length: 30000", path=b"/never")
        for _ in range(2):
            stack.enter_context(connected(port, opening))
        wait_until(lambda: port.ask(lambda: port.port._bodies) == 40_000)
        assert exchange(port.address, opening) == ([503], True)
        assert exchange(port.address, LAST) == ([200], True)
    assert port.port._bodies == 0


@pytest.mark.parametrize("endless", [b"3;", b"0\r\nX", b"0" * 9 + b";a="])
def test_framing_bytes(endless: bytes) -> None:
    """R44: 1.4 GB in 2 s came in as trailers of one connection."""
    with served() as (port, _):
        found, is_ended = exchange(port.address, chunked(endless + b"a" * 20_000))
        assert is_ended
        assert found == [413]


def test_small_chunks_are_no_excess_of_framing() -> None:
    with served() as (port, _):
        sent = chunked(b"1\r\na\r\n" * 20_000 + b"0\r\n\r\n")
        came, is_ended = talk(port.address, sent)
        assert came.endswith(b"127.0.0.1 20000")
        assert is_ended


def test_chunked_request_is_answered_as_the_last() -> None:
    """R45: only the parser knows its end."""
    with served() as (port, _):
        came, _ = talk(port.address, chunked(b"3\r\nabc\r\n0\r\n\r\n"))
        assert statuses(came) == [200]
        assert b"connection: close\r\n" in came


def test_trailers_are_refused() -> None:
    with served() as (port, _):
        assert exchange(port.address, chunked(b"0\r\nX: a\r\n\r\n")) == ([400], True)


def test_body_behind_an_early_answer_is_read_over_and_no_request() -> None:
    with served() as (port, _), connected(port) as way:
        way.sendall(post(b"", b"Content-Length: 54", path=b"/unread"))
        assert way.recv(65_536).startswith(b"HTTP/1.1 401 ")
        way.sendall(LAST.ljust(54)[:54] + LAST)
        assert statuses(read_all(way)) == [200]


def test_body_without_100_continue_ends_the_connection() -> None:
    """With `Expect` the body may never come (RFC 9110, section 10.1.1)."""
    with served() as (port, _), connected(port) as way:
        lines = (b"Content-Length: 54", b"Expect: 100-continue")
        way.sendall(post(b"", *lines, path=b"/unread"))
        assert statuses(read_all(way)) == [401]


def test_application_that_does_not_read_holds_little_of_a_body() -> None:
    with served() as (port, application), connected(port) as way:
        path = b"/deaf"
        way.sendall(post(b"a" * 60_000, b"Content-Length: 60000", path=path))
        wait_until(lambda: application.waiting == 1)
        (connection,) = port.connections()
        wait_until(lambda: port.ask(lambda: not connection._is_reading))
        held = port.ask(lambda: len(connection._requests.cycle.body))
        assert 0 < held <= 4_096 + 16_384
        port.ask(application.let_go.set)


def test_continue_is_sent_when_the_application_reads() -> None:
    with served() as (port, _), connected(port) as way:
        way.sendall(post(b"", b"Content-Length: 3", b"Expect: 100-continue"))
        assert way.recv(65_536) == b"HTTP/1.1 100 Continue\r\n\r\n"
        way.sendall(b"abc")
        assert way.recv(65_536).endswith(b"127.0.0.1 3")


# --- the pipeline -------------------------------------------------------------------


def test_read_bytes_bound_the_pipelined_requests() -> None:
    with served() as (port, application), connected(port) as way:
        way.sendall(b"GET /never HTTP/1.1\r\nHost: a\r\n\r\n" + GET * 200)
        wait_until(lambda: application.waiting == 1)
        way.setblocking(False)
        # Far more than one read; it stays in the kernel.
        with contextlib.suppress(BlockingIOError):
            for _ in range(1_000):
                way.send(GET * 200)
        (connection,) = port.connections()
        wait_until(lambda: port.ask(lambda: not connection._is_reading))
        assert 0 < port.ask(lambda: len(connection._kept)) <= 16_384
        assert len(port.connections()[0]._requests.pipeline) == 0


def test_pipelined_requests_are_answered_in_order() -> None:
    with served() as (port, _):
        request = post(b"abc", b"Content-Length: 3")
        assert exchange(port.address, request * 50 + LAST) == ([200] * 51, True)
        came, _ = talk(port.address, (request + GET) * 5 + LAST, pieces=40)
        assert statuses(came) == [200] * 11


# --- the end ------------------------------------------------------------------------


def test_discard_bytes_and_discard_time() -> None:
    """The refusal is read although more comes: the rest is read over, with a bound."""
    with served(discard_time=SOON) as (port, _):
        found, is_ended = exchange(port.address, b"BAD\r\n\r\n" + b"a" * 60_000)
        assert (found, is_ended) == ([400], True)
        with connected(port, b"BAD\r\n\r\n") as way:
            assert read_all(way).startswith(b"HTTP/1.1 400 ")
            # Ended by time, also while bytes still arrive.
            assert is_reset_while_sending(way)


def test_discard_bytes() -> None:
    with served(discard_time=PATIENCE) as (port, _), connected(port, b"BAD\r\n") as way:
        wait_until(lambda: port.ask(lambda: len(port.port._ending)) == 1)
        (connection,) = port.ask(lambda: list(port.port._ending))
        way.setblocking(False)
        with contextlib.suppress(BlockingIOError):
            while way.send(b"a" * 65_536):
                pass
        wait_until(lambda: port.ask(lambda: not connection._is_reading))
        assert port.ask(lambda: connection._discarded) <= 65_536 + 16_384


def is_reset_while_sending(way: socket.socket) -> bool:
    """Return whether the server ends a connection that goes on sending."""
    try:
        while True:
            way.sendall(b"a" * 65_536)
    except ConnectionError:
        return True


def test_ending() -> None:
    with (
        served(ending=3, discard_time=PATIENCE) as (port, _),
        contextlib.ExitStack() as stack,
    ):
        ways = [stack.enter_context(connected(port, b"BAD\r\n\r\n")) for _ in range(9)]
        wait_until(lambda: port.port.refused["ending"] == 6)
        assert port.ask(lambda: len(port.port._ending)) == 3
        for way in ways:
            assert read_all(way).startswith(b"HTTP/1.1 400 ")


def test_connections_and_share_for_others() -> None:
    with served(connections=10) as (port, _), contextlib.ExitStack() as stack:
        for _ in range(9):
            stack.enter_context(connected(port))
        wait_until(lambda: port.ask(lambda: port.port.places._total) == 9)
        assert exchange(port.address, LAST) == ([503], True)
        assert port.port.refused["peer_full"] == 1
        # Another peer gets the place that is left, and a third one none.
        assert ask_from("127.0.0.2", port) == [200]
        with socket.socket() as held:
            held.bind(("127.0.0.2", 0))
            held.connect(("127.0.0.1", port.address))
            wait_until(lambda: port.ask(lambda: port.port.places._total) == 10)
            assert ask_from("127.0.0.3", port) == [503]
        assert port.port.refused["full"] == 1
    assert port.port.places._total == 0


def ask_from(address: str, port: ServedPort) -> list[int]:
    with socket.socket() as way:
        way.settimeout(PATIENCE)
        way.bind((address, 0))
        way.connect(("127.0.0.1", port.address))
        way.sendall(LAST)
        return statuses(read_all(way))


def test_ended_connections_leave_nothing_to_the_collector() -> None:
    """It runs seldom here: an attacker could make garbage wait for it."""
    gc.collect()
    gc.disable()
    try:
        with served(connections=10, head_time=SOON, unread_time=SOON) as (port, _):
            for sent in (
                LAST,
                b"BAD\r\n\r\n",
                GET + b"GET /x",
                post(b"", b"Content-Length: 999999"),
                chunked(b"0\r\nX: a\r\nY: b\r\n"),
                chunked(b"3\r\nabc\r\n0\r\n\r\n" + LAST),
                GET.replace(b"Host", b"Upgrade: x\r\nConnection: upgrade\r\nHost")
                + LAST,
                b"GET / HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n",
            ):
                talk(port.address, sent)
            with connected(port, LARGE):
                wait_until(lambda: port.port.refused["unread"] == 1)
            wait_until(lambda: port.connections() == [])
            # uvicorn's log of an application that lost its client holds its frames.
            kinds = (Connection, Requests)
            left = [each for each in gc.get_objects() if isinstance(each, kinds)]
            assert left == []
    finally:
        gc.enable()


def test_unix_peer_has_no_address(tmp_path: Path) -> None:
    application = Application()
    with serving(application.app, Limits(), tmp_path / "s") as port:
        came, _ = talk(port.address, LAST)
        assert came.endswith(b"None 0")


def test_stop_answers_pending_requests_and_closes_idle_connections() -> None:
    with served() as (port, _), connected(port, GET) as idle, connected(port) as asking:
        assert idle.recv(65_536).startswith(b"HTTP/1.1 200 ")
        asking.sendall(post(b"ab", b"Content-Length: 3"))
        wait_until(lambda: any(each._body.held for each in port.connections()))
        port.begin_stop()
        assert read_all(idle) == b""
        asking.sendall(b"c")
        answer = read_all(asking)
        assert statuses(answer) == [200]
        assert b"connection: close" in answer
