"""One connection of the public port: bytes in, answers out (decision 0022).

A head is cut at its empty line and fed to the parser alone; no other byte is ever
parsed. So the size of a head is known exactly, answers are in the order of the
requests, and bytes after the last request are never read as one (R44, R45).

`verifier/wire/states.py` has the table of states and events.
"""

from __future__ import annotations

import asyncio
from typing import Any, Final

from shared.serving.workers.places import CrowdedError
from verifier.check.answers import NOT_FOUND, READ_METHODS, Answer
from verifier.check.forward_auth import PREFIX
from verifier.wire import budgets, heads
from verifier.wire.connections import UntrustedPeerError
from verifier.wire.public_port import PublicPort
from verifier.wire.reading import Header, HeadReader
from verifier.wire.states import State

# Used for every request: the attribute of an enum costs twice as much.
_HEAD: Final = State.HEAD
_DRAINING: Final = State.DRAINING


class GateProtocol(HeadReader):
    """One connection.

    It is itself the `CheckRequest` that the gate reads: method, target, headers and
    `peer_is_trusted` are those of the current request.

    Args:
        port: the state that all connections of this worker share.
        loop: the event loop.

    Attributes:
        state: see `verifier/wire/states.py`.
        deadline: monotonic seconds after which `expire` is called.
        peer_is_trusted: True after admission.
        transport: of the connection.
    """

    def __init__(self, port: PublicPort, loop: asyncio.AbstractEventLoop) -> None:
        super().__init__()
        self.loop = loop
        self.state = _HEAD
        self.deadline = port.tick + budgets.HEAD_TIME
        self.peer_is_trusted = False
        self.transport: Any = None
        self._port = port
        self._gate = port.gate
        self._times = port.times
        #: the peer that this connection counts for; empty when it is not counted
        self._peer = ""
        #: the last good Host; the next request nearly always has the same
        self._host: Header = (b"host", b"")
        #: data for the next turn
        self._kept = b""
        self._turn: asyncio.Handle | None = None
        #: bytes discarded after the last answer
        self._discarded = 0
        self._out: list[bytes] = []
        #: the state in which heads are read: DRAINING once the next answer is the last
        self._reading = _HEAD

    @property
    def method(self) -> bytes:
        """The method of the current request."""
        method: bytes = self.parser.get_method()
        return method

    # --- the connection -------------------------------------------------------------

    def connection_made(self, transport: Any) -> None:
        """Accept the connection, or end it at once (R43)."""
        self.transport = transport
        port = self._port
        try:
            self._peer = port.admission.admit(transport, port.tick)
        except UntrustedPeerError:
            self.abort()
            return
        except CrowdedError:
            port.connections.add(self)
            overloaded = port.gate.refuse_connection()
            self._out.append(overloaded.head[:-2] + heads.CLOSE)
            self._close()
            return
        self.peer_is_trusted = True
        port.connections.add(self)
        transport.set_write_buffer_limits(high=budgets.UNREAD_BYTES)

    def connection_lost(self, exc: Exception | None) -> None:
        """Release the connection's slot."""
        self._end()
        self._port.connections.discard(self)
        if self._peer:
            self._port.admission.release(self._peer)
            self._peer = ""
        # Parser and protocol refer to each other: break the cycle.
        self.parser = None

    def eof_received(self) -> bool:
        """Send the pending answers; the transport closes after them."""
        if self.state not in (State.CLOSING, State.ENDED):
            self._close()
        return False

    def answer_once(self) -> None:
        """Begin to drain: the next answer is the last."""
        self._reading = _DRAINING
        if self.state is _HEAD:
            self.state = _DRAINING

    def shutdown(self) -> None:
        """End the connection; a half received request is answered first."""
        self.send()
        if self.state is State.YIELDED:
            self._cancel_turn()
            self.state = _DRAINING
            data, self._kept = self._kept, b""
            self._read(data)
            if self.state is _DRAINING:
                self.transport.resume_reading()
        elif self.state in (_HEAD, _DRAINING) and self.head_bytes:
            self.state = _DRAINING
        elif self.state in (_HEAD, _DRAINING, State.WRITE_BLOCKED):
            self._close()

    def expire(self) -> None:
        """End the connection, because its deadline has passed."""
        if self.state is State.ENDED:
            return
        is_reading = self.state in (_HEAD, _DRAINING)
        unread = self.transport.get_write_buffer_size()
        if not is_reading or unread:
            if unread:
                self._port.faults[heads.UNREAD] += 1
            self.abort()
        elif self.head_bytes:
            self.refuse(heads.TIMED_OUT)
            self._finish(0)
        else:
            self._close()

    def abort(self) -> None:
        """End at once: a close would wait until the peer has read everything (R46)."""
        self._end()
        self.transport.abort()

    def _end(self) -> None:
        self.state = State.ENDED
        self.is_last = True
        self.forget_head()
        self._out.clear()
        if self._times.timed is self:
            self._times.timed = None
        self._cancel_turn()
        self._kept = b""

    # --- flow -----------------------------------------------------------------------

    def pause_writing(self) -> None:
        """Stop reading from a peer that sends requests and reads no answers."""
        if self.state in (_HEAD, State.YIELDED):
            self._cancel_turn()
            self.state = State.WRITE_BLOCKED
            self.transport.pause_reading()
            self.deadline = self._port.tick + budgets.UNREAD_TIME
        elif self.state is State.DISCARDING:
            self.deadline = self._port.tick + budgets.UNREAD_TIME

    def resume_writing(self) -> None:
        """Read again."""
        if self.state is State.WRITE_BLOCKED:
            if self._kept:
                self._yield(self._kept)
                self._turn = self.loop.call_soon(self._take_turn)
            else:
                self.state = self._reading
                self.deadline = self._port.tick + budgets.IDLE_TIME
                self._wait()
                self.transport.resume_reading()
        elif self.state is State.DISCARDING:
            self.deadline = self._port.tick + budgets.DISCARD_TIME

    def _yield(self, rest: bytes) -> None:
        """Keep the rest for the next turn of the loop (R47)."""
        self.state = State.YIELDED
        self.deadline = self._port.tick + budgets.IDLE_TIME
        self._kept = rest
        self.transport.pause_reading()

    def _take_turn(self) -> None:
        self._turn = None
        data, self._kept = self._kept, b""
        self.state = self._reading
        self._read(data)
        if self.state is _HEAD or self.state is _DRAINING:
            self.transport.resume_reading()

    def _cancel_turn(self) -> None:
        if self._turn is not None:
            self._turn.cancel()
            self._turn = None

    # --- reading --------------------------------------------------------------------

    def data_received(self, data: bytes) -> None:
        """Answer complete requests; `PublicPort.send_soon` sends all answers."""
        state = self.state
        if state is _HEAD or state is _DRAINING:
            self._read(data)
        elif state is State.DISCARDING:
            self._discarded += len(data)
            if self._discarded > budgets.DISCARD_BYTES:
                self._end_for_excess()
        elif state is State.YIELDED or state is State.WRITE_BLOCKED:
            # The transport had read this before reading was paused.
            self._kept += data
            if len(self._kept) > budgets.KEPT_BYTES:
                self._end_for_excess()

    def _end_for_excess(self) -> None:
        self._port.faults[heads.EXCESS] += 1
        self.abort()

    def _read(self, data: bytes) -> None:
        """Answer the heads in `data`, up to the limit of one turn."""
        at, size = 0, len(data)
        self.decided = 0
        while at < size:
            if self.decided == budgets.CHECKS_PER_TURN and self.state is _HEAD:
                if size - at <= budgets.KEPT_BYTES:
                    self._yield(data[at:])
                    break
                # Too much to keep: answer one more, as the last.
                self.state = _DRAINING
            at = self.read_head(data, at)
            if self.is_last:
                break
        self._settle(size - at)

    def _settle(self, rest: int) -> None:
        """Send answers and set the deadline at the end of a turn's reading.

        Args:
            rest: bytes that were not read.
        """
        state = self.state
        if state is State.CLOSING or state is State.DISCARDING:
            self._finish(rest)
            return
        if state is _HEAD or state is _DRAINING:
            self._wait()
        if self._out:
            self._port.send_soon(self, self.decided)
        # After the send, which may pause writing.
        if self.state is State.YIELDED:
            self._turn = self.loop.call_soon(self._take_turn)

    def _wait(self) -> None:
        """Set the deadline for the next head, or for the end of an unfinished one."""
        tick = self._port.tick
        if self.decided:
            self.deadline = tick + budgets.IDLE_TIME
        if self.head_bytes:
            self.deadline = min(self.deadline, tick + budgets.HEAD_TIME)

    # --- answers --------------------------------------------------------------------

    def answer_head(self) -> None:
        """Answer the current head."""
        noted = self.noted
        if (
            len(noted) == 1
            and noted[0] == self._host
            and self.target in self._gate.paths.by_target
            and len(self.headers) <= budgets.HEADERS
            and self.state is _HEAD
            and self.parser.should_keep_alive()
        ):
            answer = self._decide()
            self._out.append(answer.head)
            if answer.body and self.method != b"HEAD":
                self._out.append(answer.body)
        else:
            self._answer_with_care()

    def _decide(self) -> Answer:
        """Return the gate's answer."""
        # This object is the request that the gate reads.
        answer = self._gate.answer(self)
        self._times.begin(self, self._gate.asked.boottime)
        return answer

    def _answer_with_care(self) -> None:
        """Answer a head that may be faulty, or the last of its connection (R45)."""
        noted = self.noted
        fault = heads.find_fault(
            self.parser.get_http_version(), self.target, noted, len(self.headers)
        )
        if fault:
            self.refuse(fault)
            return
        for header in noted:
            if header[0] == b"host":
                self._host = header
        answer: Answer = NOT_FOUND
        if self.target.startswith(PREFIX):
            answer = self._decide()
        elif self.method in READ_METHODS:
            answer = self._gate.paths.documents.get(self.target, NOT_FOUND)
        if heads.may_be_followed(noted):
            self.state = State.DISCARDING
        elif self.state is _DRAINING or not self.parser.should_keep_alive():
            self.state = State.CLOSING
        self.is_last = self.state is not _HEAD
        close = self.is_last
        self._out.append(answer.head[:-2] + heads.CLOSE if close else answer.head)
        if answer.body and self.method != b"HEAD":
            self._out.append(answer.body)

    def send(self) -> None:
        """Send the pending answers."""
        out = self._out
        if out:
            data = out[0] if len(out) == 1 else b"".join(out)
            # Clear first: the write may call `pause_writing`.
            out.clear()
            self.transport.write(data)
            if self._times.timed is self:
                self._times.end()

    def refuse(self, words: bytes) -> None:
        """Refuse a head after the answers to earlier ones; it is the last."""
        self._port.faults[heads.FAULTS[words]] += 1
        self._out.append(words)
        self.state = State.DISCARDING
        self.is_last = True
        self.forget_head()

    def _finish(self, rest: int) -> None:
        """Send the last answer and end; at once when no byte may follow."""
        if self.state is State.CLOSING and not rest:
            self._close()
            return
        self.state = State.DISCARDING
        self.deadline = self._port.tick + budgets.DISCARD_TIME
        # Bytes read already do not count against the budget before the answer is sent.
        self._discarded = rest
        self.send()
        transport = self.transport
        if transport.is_closing():
            return
        transport.resume_reading()
        if transport.can_write_eof():
            transport.write_eof()

    def _close(self) -> None:
        """Send the pending answers and close; `expire` aborts if none is read."""
        self._cancel_turn()
        self.state = State.CLOSING
        self.deadline = self._port.tick + budgets.UNREAD_TIME
        self.send()
        self.transport.close()
