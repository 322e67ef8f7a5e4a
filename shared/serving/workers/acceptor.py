"""Takes connections from a listening socket that several workers share.

With the system's own choice, the worker that wakes first takes all waiting connections:
64 connections over 4 workers were spread 8, 56, 0 and 0. Here a worker takes a
connection if no other worker has fewer. Otherwise it leaves the connection to the
others for a moment, and takes it if they did not. When that repeats, it takes more at a
time: without this, beside a worker that hung, the last of 300 connections waited for
1.8 s.
"""

from __future__ import annotations

import asyncio
import errno
import logging
import socket
from collections.abc import Callable
from typing import Any, Final

from shared.log import event
from shared.serving.workers.handshakes import drop_handshakes
from shared.serving.workers.occupancy import Occupancy

_LOG: Final = logging.getLogger(__name__)
#: Seconds that a connection is left to the workers that have fewer.
_LEAVE_SECONDS: Final = 0.005
#: Seconds before the next try when descriptors or memory have run out.
_EXHAUSTED_SECONDS: Final = 0.1
#: Seconds between two log lines about that.
_LOG_PERIOD: Final = 10.0
#: Connections taken in one turn of the event loop.
_TAKEN_IN_A_TURN: Final = 16
#: Connections that are left in vain one by one, because the others may only be busy.
#: After that twice as many are taken each time, up to the second number.
_PATIENT_TIMES: Final = 4
_MOST_AT_A_TIME: Final = 64
#: Connections taken at the end: a full queue. A flood must not prolong the drain.
_TAKEN_AT_THE_END: Final = 2_048
_EXHAUSTED: Final = (errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM)


class Share:
    """A worker's part of all connections.

    Args:
        occupancy: connections of every worker.
        slot: this worker's.
    """

    def __init__(self, occupancy: Occupancy, slot: int) -> None:
        self._occupancy = occupancy
        self._slot = slot

    def is_next(self, connections: int) -> bool:
        """Record how many this worker has; return whether it takes the next one."""
        self._occupancy.write(self._slot, connections)
        return self._occupancy.is_least(self._slot, connections)

    def note(self, connections: int) -> None:
        """Record how many this worker has."""
        self._occupancy.write(self._slot, connections)

    def leave(self) -> None:
        """Stop taking connections."""
        self._occupancy.clear(self._slot)


class Acceptor:
    """Takes connections of one listening socket on the running event loop.

    Args:
        listener: its copy here is closed by `close`.
        make_protocol: makes the protocol of a connection.
        count: gives the number of connections that have a protocol.
        share: this worker's part; None when no other process takes any.
    """

    def __init__(
        self,
        listener: socket.socket,
        make_protocol: Callable[[], asyncio.BaseProtocol],
        count: Callable[[], int],
        share: Share | None = None,
    ) -> None:
        self._loop = asyncio.get_running_loop()
        self._listener = listener
        self._make_protocol = make_protocol
        self._count = count
        self._share = share
        self._opening: set[asyncio.Task[Any]] = set()
        self._timer: asyncio.TimerHandle | None = None
        self._left_at = float("-inf")
        self._left_in_vain = 0
        self._others_turns = 0
        self._next_line_at = float("-inf")
        listener.setblocking(False)
        self._watch()

    def _watch(self) -> None:
        self._timer = None
        self._loop.add_reader(self._listener.fileno(), self._take)

    def _rest(self, seconds: float) -> None:
        self._loop.remove_reader(self._listener.fileno())
        self._timer = self._loop.call_later(seconds, self._watch)

    @property
    def connections(self) -> int:
        """Connections that were taken and have not ended."""
        return self._count() + len(self._opening)

    def _take(self) -> None:
        share = self._share
        for _ in range(_TAKEN_IN_A_TURN):
            is_ours = share is None or share.is_next(self.connections)
            if not is_ours and not self._may_take_others():
                self._left_at = self._loop.time()
                self._rest(_LEAVE_SECONDS)
                return
            self._left_at = float("-inf")
            if not self._accept():
                self._left_in_vain = self._others_turns = 0
                return

    def _may_take_others(self) -> bool:
        """Return whether to take one that a worker with fewer connections should
        take.
        """
        if self._others_turns:
            self._others_turns -= 1
            return True
        if self._loop.time() - self._left_at > 4 * _LEAVE_SECONDS:
            return False
        # It was left to them a moment ago, and they did not take it.
        self._left_in_vain += 1
        doublings = max(self._left_in_vain - _PATIENT_TIMES, 0)
        self._others_turns = min(2**doublings, _MOST_AT_A_TIME) - 1
        return True

    def _accept(self) -> bool:
        """Take one connection; return whether there was one."""
        try:
            connection, _ = self._listener.accept()
        except (BlockingIOError, InterruptedError, ConnectionAbortedError):
            return False
        except OSError as error:
            if error.errno in _EXHAUSTED:
                self._report(error)
                self._rest(_EXHAUSTED_SECONDS)
            # Otherwise the connection has already failed; accept(2) reports that here.
            return False
        connection.setblocking(False)
        opening = self._loop.create_task(self._open(connection))
        self._opening.add(opening)
        opening.add_done_callback(self._opening.discard)
        if self._share is not None:
            self._share.note(self.connections)
        return True

    async def _open(self, connection: socket.socket) -> None:
        try:
            await self._loop.connect_accepted_socket(self._make_protocol, connection)
        except OSError as error:
            connection.close()
            if error.errno in _EXHAUSTED:
                self._report(error)

    def _report(self, error: OSError) -> None:
        now = self._loop.time()
        if now >= self._next_line_at:
            self._next_line_at = now + _LOG_PERIOD
            event(_LOG, logging.ERROR, "serving.cannot_accept", error=str(error))

    def drop_handshakes(self) -> None:
        """Let no further connection begin, in any process that shares the socket.

        Those that have begun are taken as before. Without this, a connection that comes
        while `close` takes the last ones is reset, with its request.
        """
        if self._listener.fileno() >= 0:
            drop_handshakes(self._listener)

    def close(self, *, takes_rest: bool = False) -> None:
        """Stop taking connections.

        Args:
            takes_rest: first take the waiting connections. If no process takes them,
                the system resets them when the last copy of the socket is closed.
        """
        if self._listener.fileno() < 0:
            return
        if takes_rest:
            for _ in range(_TAKEN_AT_THE_END):
                if not self._accept():
                    break
        # After the last one was recorded, which may have paused it.
        if self._timer is not None:
            self._timer.cancel()
        self._loop.remove_reader(self._listener.fileno())
        if self._share is not None:
            self._share.leave()
        self._listener.close()

    async def settle(self) -> None:
        """Return when every connection taken so far has begun."""
        if self._opening:
            await asyncio.wait(self._opening)

    async def wait_closed(self) -> None:
        """Return when every connection that was taken has begun."""
        await self.settle()
