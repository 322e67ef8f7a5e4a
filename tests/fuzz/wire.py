"""The public port fed raw bytes, without a socket."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Iterable
from typing import Any

from tests.fuzz.fixtures import verifier
from tests.support.gate_counts import counts_of
from tests.support.wire import FakeTransport
from verifier.wire.connections import trust_peers
from verifier.wire.protocol import GateProtocol
from verifier.wire.public_port import PublicPort

_STATUS = re.compile(rb"HTTP/1\.1 (\d{3}) ")


class Wire:
    """Connections of one worker, one after the other."""

    def __init__(self) -> None:
        self._gate = verifier().gate
        self._edge = PublicPort(self._gate, trust_peers(["127.0.0.0/8"]), 10, 0.0)
        self._loop = asyncio.new_event_loop()
        self._loop.set_exception_handler(self._note)
        self._trouble: list[str] = []

    def _note(self, _loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
        self._trouble.append(str(context.get("exception") or context["message"]))

    def statuses(self, pieces: Iterable[bytes]) -> list[int]:
        """Send the pieces over a new connection; return the statuses of all answers."""
        protocol = GateProtocol(self._edge, self._loop)
        transport = FakeTransport(protocol)
        protocol.connection_made(transport)
        for piece in pieces:
            if transport.is_closing():
                break
            protocol.data_received(piece)
            self._run(transport)
        protocol.connection_lost(None)
        assert not self._edge.connections
        assert not self._trouble, self._trouble
        assert not counts_of(self._gate)["internal_error"]
        return [int(status) for status in _STATUS.findall(transport.sent)]

    def _run(self, transport: FakeTransport) -> None:
        """Let answers leave, and turn follow turn until all was read."""
        for _ in range(1_000):
            self._loop.run_until_complete(asyncio.sleep(0))
            if not transport.is_paused:
                return
        raise AssertionError("a request is never answered")
