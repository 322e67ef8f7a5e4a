"""Answers that a peer does not read, within the port's budgets (R44, R46)."""

from __future__ import annotations

import contextlib
import select
import time

import pytest

from shared.serving.states import State
from tests.support.limited_port import (
    BLOCK,
    LARGE,
    LAST,
    SOON,
    Application,
    connected,
    connected_narrowly,
    read_all,
    served,
)
from tests.support.processes import wait_until
from tests.support.served_port import ServedPort
from tests.support.smuggling import exchange


def test_unread_time() -> None:
    """R46: the connection is aborted: a close would wait for the peer for ever."""
    with served(unread_time=SOON) as (port, _), connected(port, LARGE) as way:
        wait_until(lambda: port.port.refused["unread"] == 1)
        assert port.connections() == []
        # Bytes that were not sent are dropped.
        assert len(read_all(way)) < 2_000 * 65_536


def test_unread_step_allows_a_slow_reader_to_continue() -> None:
    with served(unread_time=SOON) as (port, _), connected(port, LARGE) as way:
        begun = time.monotonic()
        while time.monotonic() < begun + 4 * SOON:
            for _ in range(8):
                assert way.recv(1 << 16)
            select.select([], [], [], SOON / 10)
        assert len(port.connections()) == 1
        assert port.port.refused["unread"] == 0


def test_unread_step_allows_a_slow_reader_to_finish_one_long_answer() -> None:
    """It is written in one go, so that the peer is behind from begin to end."""
    with served(unread_time=SOON) as (port, _), connected(port, BLOCK) as way:
        wait_until(lambda: any(each._is_unread for each in port.connections()))
        begun = time.monotonic()
        while time.monotonic() < begun + 4 * SOON:
            way.recv(1 << 17)
            select.select([], [], [], SOON / 10)
        (connection,) = port.connections()
        assert connection._is_unread
        assert port.port.refused["unread"] == 0


def test_unread_answers_are_bounded() -> None:
    with served() as (port, _), connected(port, LARGE):
        wait_until(lambda: len(port.connections()) == 1)
        (connection,) = port.connections()
        wait_until(lambda: port.ask(lambda: connection._is_unread))
        # Two pieces of the application's, which leave together.
        assert port.ask(lambda: connection.unread) <= 65_536 * 2 + 100


def test_unread_in_all() -> None:
    with (
        served(unread_in_all=400_000, unread_patience=0) as (port, _),
        contextlib.ExitStack() as stack,
    ):
        for _ in range(12):
            stack.enter_context(connected(port, LARGE))
        wait_until(lambda: port.port.refused["unread_in_all"] >= 6)
        assert exchange(port.address, LAST) == ([200], True)


def test_unread_in_all_spares_a_steady_reader() -> None:
    """Those that take nothing are aborted, also when they came later."""
    with (
        served(unread_in_all=400_000, unread_patience=0.1) as (port, _),
        contextlib.ExitStack() as stack,
        connected(port, LARGE) as way,
    ):
        wait_until(lambda: any(each._is_unread for each in port.connections()))
        for _ in range(12):
            stack.enter_context(connected(port, LARGE))
            for _ in range(4):
                assert way.recv(1 << 16)
                select.select([], [], [], SOON / 20)
        wait_until(lambda: port.port.refused["unread_in_all"] >= 4)
        assert way.getsockname()[1] in [
            each._transport.get_extra_info("peername")[1] for each in port.connections()
        ]


@pytest.mark.parametrize("end", [30_000, 5_000])
def test_unread_in_all_counts_the_end_of_an_answer(end: int) -> None:
    """R44: answers below 64 KiB were not counted, and added 31 MB.

    Nor was the memory beside a short answer (`unread_beside`).
    """
    with (
        served(unread_in_all=100_000, unread_patience=0) as (port, app),
        contextlib.ExitStack() as stack,
    ):
        app.block = find_taken(port, app) + end
        for _ in range(12):
            stack.enter_context(connected_narrowly(port, BLOCK))

        def find_waiting() -> list[int]:
            connections = port.connections()
            return port.ask(lambda: [each.unread for each in connections])

        wait_until(
            lambda: (
                len([size for size in find_waiting() if size])
                + port.port.refused["unread_in_all"]
                == 12
            )
        )
        waiting = find_waiting()
        assert 0 < sum(waiting) + 32_768 * len(waiting) <= 100_000


def test_idle_time_begins_when_the_answer_has_left() -> None:
    """The end of a long answer waits for long: its reader is slow, not idle."""
    with served(idle_time=SOON, unread_time=SOON, unread_step=1) as (port, app):
        app.block = 20_000_000
        with connected(port, BLOCK):
            wait_until(lambda: any(each._is_unread for each in port.connections()))
            (connection,) = port.connections()
            app.block -= port.ask(lambda: connection.unread)
        wait_until(lambda: port.connections() == [])
        app.block += 40_000
        with connected(port, BLOCK) as way:
            wait_until(lambda: any(each.unread for each in port.connections()))
            (connection,) = port.connections()
            came = 0
            while port.ask(lambda: connection.unread):
                assert port.ask(lambda: connection.state is not State.CLOSING)
                select.select([], [], [], SOON / 20)
                came += len(way.recv(1 << 15))
            while came < app.block and (data := way.recv(1 << 20)):
                came += len(data)
        assert came >= app.block
        assert port.port.refused["unread"] == 0


def find_taken(port: ServedPort, app: Application) -> int:
    """Return how much of an answer the kernels take of a peer that does not read."""
    app.block = 2_000_000
    with connected_narrowly(port, BLOCK):
        wait_until(lambda: any(each.unread for each in port.connections()))
        (connection,) = port.connections()
        taken = app.block - port.ask(lambda: connection.unread)
    wait_until(lambda: port.connections() == [])
    return int(taken)


def test_last_answer_that_is_not_read_is_aborted() -> None:
    large = LARGE[:-2] + b"Connection: close\r\n\r\n"
    with served(unread_time=SOON) as (port, _), connected(port, large):
        wait_until(lambda: port.port.refused["unread"] == 1)


def test_client_that_closes_while_it_waits_is_detected() -> None:
    never = b"GET /never HTTP/1.1\r\nHost: a\r\n\r\n"
    with served() as (port, application):
        with connected(port, never):
            wait_until(lambda: application.waiting == 1)
        wait_until(lambda: application.gone == 1)
        wait_until(lambda: port.connections() == [])
