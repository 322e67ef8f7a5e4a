"""One worker's server: starts, reports, drains (decision 0024, R60).

uvicorn runs the application's lifespan and keeps the list of connections. This module
takes connections, obeys signals and drains, for both programs, with and without a
supervisor.

A drain, step by step:
    1. the operators' port answers that this program is not ready; checks go on
    2. the configured delay passes, so that load balancers see it
    3. the next answer of each connection, old or new, has `Connection: close`
    4. connections get time for that answer: a moment, or longer if configured
    5. if the whole program stops, no further connection begins; waiting ones are
       taken, the listener closes, and they get a moment too
    6. idle connections are closed, unless a request has arrived that was not read
       yet; those that came during the drain get as long as the others had
    7. requests under way get their time; the lifespan ends
A worker that is replaced skips 1 and 2, because its replacement already serves.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import select
import signal
import socket
from collections.abc import Awaitable, Callable, Iterator
from dataclasses import dataclass
from typing import Any, Final, cast

import uvicorn

from shared.log import event
from shared.serving.signals import release_reloads
from shared.serving.workers.acceptor import Acceptor, Share
from shared.serving.workers.supervisor import Slot
from shared.serving.workers.worker_link import BEAT, LATE, READY

_LOG: Final = logging.getLogger(__name__)
#: Seconds that connections get for their last answer, before those that idle are
#: closed. A gateway with a check every second on each loses none.
_LAST_ANSWER_SECONDS: Final = 1.0
#: Seconds in which a handshake that has begun is completed.
_HANDSHAKE_SECONDS: Final = 0.1
#: Seconds for the connections taken last: their requests are on the way.
_LAST_TAKEN_SECONDS: Final = 0.2
#: Seconds in which a request that has arrived is read and answered.
_LAST_READ_SECONDS: Final = 0.2
#: Ticks of uvicorn's main loop, 0.1 s each, between two beats.
_TICKS_OF_A_BEAT: Final = 10
#: Seconds between two looks of a drain.
_LOOK: Final = 0.05


@dataclass(slots=True)
class Lifecycle:
    """The state of a worker that other parts of the program read.

    Attributes:
        is_draining: a stop was asked for; the program is no longer ready.
        is_good: everything that the worker waited for at its start came in time.
    """

    is_draining: bool = False
    is_good: bool = True


@dataclass(frozen=True, slots=True)
class Duties:
    """The callbacks of a worker.

    Attributes:
        reload: rereads files, on HUP.
        on_started: called once it accepts connections.
        on_drain: called when the drain begins to end connections.
        drain_delay: seconds from the announcement of a stop to its first step.
        drain_idle: seconds a connection idles, at least, before a drain closes it.
            A gateway that closes it earlier sends no request on it that would meet
            the close (RFC 9112, section 9.5).
    """

    reload: Callable[[], Awaitable[None]]
    on_started: Callable[[], None] = lambda: None
    on_drain: Callable[[], None] = lambda: None
    drain_delay: float = 0.0
    drain_idle: float = 0.0


class WorkerServer(uvicorn.Server):
    """Serves one listening socket.

    Args:
        config: uvicorn's.
        listener: what connections are taken from; closed at the end.
        lifecycle: whether this worker serves well and whether it drains.
        duties: its callbacks.
        slot: its place under a supervisor; None without a supervisor.
    """

    def __init__(
        self,
        config: uvicorn.Config,
        listener: socket.socket,
        lifecycle: Lifecycle,
        duties: Duties,
        slot: Slot | None = None,
    ) -> None:
        super().__init__(config)
        self._listener = listener
        self._lifecycle = lifecycle
        self._duties = duties
        self._slot = slot
        self._acceptor: Acceptor | None = None
        self._is_replaced = False
        self._is_orphaned = False
        self._is_last_answer = False
        self._reloads: set[asyncio.Task[None]] = set()

    # --- start ----------------------------------------------------------------------

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Start the application's lifespan, then accept connections."""
        if self._slot is not None:
            loop = asyncio.get_running_loop()
            loop.add_reader(self._slot.link.fileno(), self._end_alone)
        await super().startup([])
        share = None
        if self._slot is not None:
            share = Share(self._slot.occupancy, self._slot.index)
        self._acceptor = Acceptor(
            self._listener,
            self._make_protocol,
            lambda: len(self.server_state.connections),
            share,
        )
        # uvicorn closes it and waits until it has closed.
        self.servers = [cast(Any, self._acceptor)]
        if self._slot is not None:
            self._slot.link.report(READY if self._lifecycle.is_good else LATE)
        self._duties.on_started()

    def _make_protocol(self) -> asyncio.BaseProtocol:
        make: Any = self.config.http_protocol_class
        protocol = make(
            config=self.config,
            server_state=self.server_state,
            app_state=self.lifespan.state,
            _loop=asyncio.get_running_loop(),
        )
        if self._is_last_answer:
            protocol.answer_once()
        return cast(asyncio.BaseProtocol, protocol)

    # --- while it serves ------------------------------------------------------------

    async def on_tick(self, counter: int) -> bool:
        """Report every second that the event loop runs; return whether to stop."""
        slot, acceptor = self._slot, self._acceptor
        if slot is not None and acceptor is not None:
            slot.occupancy.write(slot.index, acceptor.connections)
            if counter % _TICKS_OF_A_BEAT == 0:
                slot.link.report(BEAT)
        return await super().on_tick(counter)

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Handle signals on the event loop; a requested stop is not a failure."""
        loop = asyncio.get_running_loop()
        handlers = {
            signal.SIGTERM: self._stop,
            signal.SIGINT: self._interrupt,
            signal.SIGHUP: self._reload,
            signal.SIGUSR2: self._leave,
        }
        for number, handler in handlers.items():
            loop.add_signal_handler(number, handler)
        release_reloads()
        try:
            yield
        finally:
            for number in handlers:
                loop.remove_signal_handler(number)

    def _end_alone(self) -> None:
        """Stop without a supervisor, also during the start.

        Without a supervisor there is no other process that would stop this one, and
        it would hold the port that its successor needs.
        """
        if self._slot is not None:
            asyncio.get_running_loop().remove_reader(self._slot.link.fileno())
        self._is_orphaned = True
        event(_LOG, logging.ERROR, "worker.orphaned")
        self._stop()

    def _stop(self) -> None:
        # A second signal does not hurry the stop: a service manager signals every
        # process of the service, and the supervisor signals its workers.
        self._lifecycle.is_draining = not self._is_replaced
        self.should_exit = True

    def _interrupt(self) -> None:
        """Stop; at once when a person asks a second time."""
        self.force_exit = self.should_exit and self._slot is None
        self._stop()

    def _leave(self) -> None:
        """Drain at once, because the replacement already serves."""
        if self._slot is None:
            event(
                _LOG,
                logging.WARNING,
                "worker.not_replaced",
                detail="SIGUSR2 replaces workers one by one: that takes two or more",
            )
            return
        self._is_replaced = not self.should_exit
        self.should_exit = True

    def _reload(self) -> None:
        task = asyncio.get_running_loop().create_task(self._reload_once())
        self._reloads.add(task)
        task.add_done_callback(self._reloads.discard)

    async def _reload_once(self) -> None:
        try:
            await self._duties.reload()
        except Exception:
            # The values in force stay in force.
            _LOG.exception("reload.failed")

    # --- drain ----------------------------------------------------------------------

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Drain as the module's docstring describes, and end the lifespan."""
        if not self._is_replaced:
            event(_LOG, logging.INFO, "worker.draining", pid=os.getpid())
            await self._pass(self._duties.drain_delay)
        self._is_last_answer = True
        self._duties.on_drain()
        if self._acceptor is not None:
            # A connection that has a protocol and has not begun is in no list yet.
            await self._acceptor.settle()
        early = list(self.server_state.connections)
        for connection in early:
            cast(Any, connection).answer_once()
        idle = self._duties.drain_idle
        await self._pass(max(_LAST_ANSWER_SECONDS, idle), while_connected=True)
        if self._acceptor is not None:
            if self._closes_port:
                self._acceptor.drop_handshakes()
                await self._pass(_HANDSHAKE_SECONDS)
            self._acceptor.close(takes_rest=not self._is_replaced)
            await self._acceptor.wait_closed()
        await self._pass(_LAST_TAKEN_SECONDS, while_connected=True)
        self._close_idle(self.server_state.connections.intersection(early))
        # A gateway opens connections that it has no request for yet.
        await self._pass(idle, while_connected=True)
        self._close_idle(self.server_state.connections)
        await self._pass(_LAST_READ_SECONDS, while_connected=True)
        await super().shutdown()

    def _close_idle(self, connections: set[Any]) -> None:
        for connection in list(connections):
            if not _has_unread(connection.transport):
                connection.shutdown()

    @property
    def _closes_port(self) -> bool:
        """Whether no other process takes connections from the listening socket.

        A worker may be stopped alone: by a person, or for want of memory. What it does
        to the socket would hold for its siblings and for the worker that follows it.
        """
        slot = self._slot
        return slot is None or self._is_orphaned or slot.occupancy.is_stopping

    async def _pass(self, seconds: float, *, while_connected: bool = False) -> None:
        """Wait, and keep sending the reports that are due every second."""
        loop = asyncio.get_running_loop()
        ends_at, last_beat = loop.time() + seconds, loop.time()
        while loop.time() < ends_at and not self.force_exit:
            if while_connected and not self.server_state.connections:
                return
            await asyncio.sleep(_LOOK)
            if self._slot is not None and loop.time() - last_beat >= 1.0:
                last_beat = loop.time()
                self._slot.link.report(BEAT)


def _has_unread(transport: asyncio.Transport) -> bool:
    """Return whether bytes have arrived that the event loop has not read yet.

    Closing such a connection resets it, and a gateway does not send a POST again.
    """
    if transport.is_closing():
        return False
    arrived = select.poll()
    arrived.register(transport.get_extra_info("socket").fileno(), select.POLLIN)
    return bool(arrived.poll(0))


def longest_drain(delay: float, idle: float) -> float:
    """Return the seconds that the times from the settings can take in a drain.

    Args:
        delay: `Duties.drain_delay`.
        idle: `Duties.drain_idle`, which connections of before the drain get, and then
            those that came during it.
    """
    return delay + 2 * idle


def run_server(server: WorkerServer) -> None:
    """Run a server until it has drained.

    Raises:
        SystemExit: its application could not start.
    """
    server.run()
    if not server.started:
        raise SystemExit(1)
