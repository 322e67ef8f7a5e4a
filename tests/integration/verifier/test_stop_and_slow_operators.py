"""A verifier that is stopped while its operators' port is read slowly."""

from __future__ import annotations

import contextlib
import os
import select
import signal
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.processes import ProcessFactory, is_alive, wait_until
from tests.support.stack import Stack

METRICS = b"GET /metrics HTTP/1.1\r\nHost: a\r\n\r\n"
#: Seconds; at the pace below, the waiting answers would take ten times as long.
STOP = 40.0

pytestmark = pytest.mark.processes


@pytest.fixture
def stack(tmp_path: Path) -> Iterator[Stack]:
    factory = ProcessFactory(tmp_path)
    try:
        yield Stack.start(tmp_path, factory)
    finally:
        factory.stop_all()


def fill(way: socket.socket) -> None:
    """Ask until the port takes no more, for nothing is read."""
    while select.select([], [way], [], 1.0)[1]:
        with contextlib.suppress(BlockingIOError):
            way.send(METRICS * 50)


def test_a_slow_reader_of_the_operators_port_does_not_hold_a_stop(stack: Stack) -> None:
    """R46: it takes just so much that it is not cut off for taking nothing."""
    with socket.socket() as way:
        way.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4_096)
        way.connect(("127.0.0.1", stack.addresses.verifier_admin))
        way.setblocking(False)
        fill(way)
        os.kill(stack.verifier.pid, signal.SIGTERM)

        def has_ended() -> bool:
            with contextlib.suppress(OSError):
                way.recv(300)
            return not is_alive(stack.verifier.pid)

        wait_until(has_ended, deadline=STOP)
