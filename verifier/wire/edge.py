"""What every connection of one worker shares: the gate, who may ask, how many."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Final, Protocol

from verifier.check.gate import Gate
from verifier.wire.connections import Admission

#: How long one step of a sweep may keep the loop, in looks at a connection: 0.1 ms.
_WORK_OF_A_STEP: Final = 200
#: What ending a connection costs, in looks.
_WORK_OF_AN_END: Final = 50
#: Answers that wait for one another: with so many they leave. One more turn of a
#: connection may come on top, so an answer waits while 19 others are decided at most.
#: With 64 a check costs no less.
_MOST_WAITING: Final = 16


class Connection(Protocol):
    """An open connection with a time by which something must happen.

    Attributes:
        deadline: monotonic seconds; it is ended afterwards.
        loop: the event loop it lives in.
    """

    deadline: float
    loop: asyncio.AbstractEventLoop

    def expire(self) -> None:
        """End it."""

    def send(self) -> None:
        """Send the answers that were decided, if any."""

    def shutdown(self) -> None:
        """End it when what is half received was answered."""

    def abort(self) -> None:
        """End it at once; what its peer has not been sent yet is dropped."""


@dataclass(slots=True)
class Edge:
    """The wire side of one worker.

    Attributes:
        gate: answers check requests.
        is_trusted: tells whether a peer's address is a gateway of ours (R1).
        max_connections: more are answered 503 and closed.
        admission: counts connections and decides which are taken (R43).
        tick: monotonic seconds, moved by `sweep`: a clock that costs nothing to read.
        connections: the open connections.
    """

    gate: Gate
    is_trusted: Callable[[str], bool]
    max_connections: int
    tick: float
    connections: set[Connection] = field(default_factory=set)
    admission: Admission = field(init=False, repr=False)
    _waiting: list[Connection] = field(default_factory=list, init=False, repr=False)
    _answers: int = field(default=0, init=False, repr=False)

    def __post_init__(self) -> None:
        """Make the admission of these peers and this many connections."""
        self.admission = Admission(self.is_trusted, self.max_connections)

    def send_soon(self, connection: Connection, answers: int = 1) -> None:
        """Have its answers sent, at the latest when all that has arrived was read.

        A send wakes the gateway unless it is awake: answers that leave one behind the
        other wake it once. Measured, gateway and verifier on a processor each, 32
        connections: a warm check from 10.4 to 10.2 us, a refusal from 23 to 19, a cold
        check from 85 to 67, and the median latency of each a quarter less.

        Args:
            connection: the one whose answers were decided.
            answers: how many, in this turn.
        """
        self._waiting.append(connection)
        self._answers += answers
        if self._answers >= _MOST_WAITING:
            self._send_waiting()
        elif len(self._waiting) == 1:
            connection.loop.call_soon(self._send_waiting)

    def _send_waiting(self) -> None:
        waiting, self._waiting = self._waiting, []
        self._answers = 0
        for connection in waiting:
            connection.send()

    def abort_all(self) -> None:
        """End every connection at once: from now on no answer leaves."""
        for connection in list(self.connections):
            connection.abort()

    async def sweep(self, monotonic: float) -> None:
        """Move the tick and end every connection whose time is up.

        Checks are answered in between. Measured with 4,000 slow connections, of which
        400 end per sweep: in one go it stalled them for 20 ms and made their p99 3 to 5
        times what it is without; in steps, 1.1 to 1.4 times.
        """
        self.tick = monotonic
        work = 0
        for connection in list(self.connections):
            work += 1
            # By its deadline now: a request may have come since the sweep began.
            if connection.deadline < monotonic:
                connection.expire()
                work += _WORK_OF_AN_END
            if work >= _WORK_OF_A_STEP:
                work = 0
                await asyncio.sleep(0)
