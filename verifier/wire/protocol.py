"""One connection of the public port: bytes in, answers out, nothing else (decision 0022).

A head is cut out of the bytes at its empty line and fed to the parser alone; no other
byte is ever parsed. So a head's size is known exactly, an answer stands where its request
stood, and what follows the last request is never read as one (R44, R45).

States:
    HEAD           heads are read and answered; idle between them
    YIELDED        this turn's checks are answered, the rest waits for the next turn (R47)
    WRITE_BLOCKED  the peer reads no answers; nothing is read from it
    DRAINING       a head is half received; it is the last that is answered
    DISCARDING     the last answer is sent, our side is shut; what comes is counted only
    CLOSING        the last answer is sent, the transport closes when the peer has read it
    ENDED          aborted or gone

Events (rows) in each state. "last" is: send what was decided; DISCARDING when bytes may
follow, else CLOSING. "-": nothing is done. "never": reading is paused, no such event.

    event            HEAD             YIELDED        WRITE_BLOCKED  DRAINING    DISCARDING      CLOSING  ENDED
    data             read heads       keep           keep           read head   count; abort    -        -
                                                                                over the budget
    end of a head    answer           -              -              answer,     -               -        -
                                                                    last
    K heads, more    YIELDED; too     as in HEAD     -              -           -               -        -
                     much to keep:
                     answer one, last
    head that ends   last             -              -              last        -               -        -
     the connection
    fault of a head  refuse, last     refuse, last   -              refuse,     -               -        -
                                                                    last
    next turn        -                HEAD, read     -              -           -               -        -
    eof              send, CLOSING    send, CLOSING  CLOSING        CLOSING     CLOSING         -        -
    pause_writing    WRITE_BLOCKED    WRITE_BLOCKED  -              -           more time       -        -
    resume_writing   -                -              YIELDED if     -           time to         -        -
                                                     some is kept,              discard
                                                     else HEAD
    deadline         half a head:     abort          abort          408, last   abort           abort    -
                     408, last;
                     idle: close
    last answer      DRAINING         the head that  DRAINING when  -           -               -        -
     (drain begins)                   is next is     it reads on
                                      the last
    shutdown         half a head:     DRAINING,      CLOSING        idle:       -               -        -
     (drain ends)    DRAINING;        read one                      CLOSING
                     else CLOSING
    abort            ENDED in every state; what was not sent is dropped (R46)
    connection_lost  ENDED in every state; its slot is free

A deadline in HEAD, or a fault, aborts where answers wait that the peer does not read:
a close would wait for it (R46).
"""

from __future__ import annotations

import asyncio
from enum import Enum
from typing import Any, Final

from verifier.check.answers import NOT_FOUND, Answer
from verifier.check.forward_auth import PREFIX
from verifier.wire import budgets, heads
from verifier.wire.connections import CrowdedError, UntrustedPeerError
from verifier.wire.edge import Edge
from verifier.wire.reading import Header, HeadReader


class State(Enum):
    """See the module's table."""

    HEAD = "head"
    YIELDED = "yielded"
    WRITE_BLOCKED = "write blocked"
    DRAINING = "draining"
    DISCARDING = "discarding"
    CLOSING = "closing"
    ENDED = "ended"


# Looked up for every request: an enum's attribute costs twice as much.
_HEAD: Final = State.HEAD
_DRAINING: Final = State.DRAINING


class GateProtocol(HeadReader):
    """One connection.

    It is itself what the gate reads of a check request: method, target, headers and
    whether the peer is trusted stand for the request at hand.

    Args:
        edge: what all connections of this worker share.
        loop: the event loop it lives in.

    Attributes:
        state: see the module's table.
        deadline: monotonic seconds after which `expire` is called.
        peer_is_trusted: always, once it was admitted.
        transport: the connection's.
    """

    def __init__(self, edge: Edge, loop: asyncio.AbstractEventLoop) -> None:
        super().__init__()
        self.loop = loop
        self.state = _HEAD
        self.deadline = edge.tick + budgets.HEAD_TIME
        self.peer_is_trusted = False
        self.transport: Any = None
        self._edge = edge
        self._gate = edge.gate
        #: the peer whose slot this takes; empty when none is taken
        self._peer = ""
        #: the last good Host, which is nearly always that of the next request
        self._host: Header = (b"host", b"")
        #: what the next turn reads
        self._kept = b""
        self._turn: asyncio.Handle | None = None
        #: bytes read over behind the last answer
        self._discarded = 0
        self._out: list[bytes] = []
        #: where heads are read in: DRAINING once the next answer is to be the last
        self._reading = _HEAD

    @property
    def method(self) -> bytes:
        """The method of the request at hand."""
        method: bytes = self.parser.get_method()
        return method

    # --- the connection -------------------------------------------------------------

    def connection_made(self, transport: Any) -> None:
        """Take the connection, or end it at once (R43)."""
        self.transport = transport
        edge = self._edge
        try:
            self._peer = edge.admission.admit(transport, edge.tick)
        except UntrustedPeerError:
            self.abort()
            return
        except CrowdedError:
            edge.connections.add(self)
            overloaded = edge.gate.refuse_connection()
            self._out.append(overloaded.head[:-2] + heads.CLOSE)
            self._close()
            return
        self.peer_is_trusted = True
        edge.connections.add(self)
        transport.set_write_buffer_limits(high=budgets.UNREAD_BYTES)

    def connection_lost(self, exc: Exception | None) -> None:
        """Note the end."""
        self._end()
        self._edge.connections.discard(self)
        if self._peer:
            self._edge.admission.release(self._peer)
            self._peer = ""
        # It holds this object, and this object holds it.
        self.parser = None

    def eof_received(self) -> bool:
        """Send what was decided, then let the transport close."""
        if self.state not in (State.CLOSING, State.ENDED):
            self._close()
        return False

    def answer_once(self) -> None:
        """Drain, at its begin: the next answer is the last."""
        self._reading = _DRAINING
        if self.state is _HEAD:
            self.state = _DRAINING

    def shutdown(self) -> None:
        """Drain: what is half received is still answered, then the connection ends."""
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
        """End: the time for what is to come is up."""
        if self.state is State.ENDED:
            return
        is_reading = self.state in (_HEAD, _DRAINING)
        if not is_reading or self.transport.get_write_buffer_size():
            self.abort()
        elif self.head_bytes:
            self.refuse(heads.TIMED_OUT)
            self._finish(0)
        else:
            self._close()

    def abort(self) -> None:
        """End at once: a close would wait until the peer has read (R46)."""
        self._end()
        self.transport.abort()

    def _end(self) -> None:
        self.state = State.ENDED
        self.is_last = True
        self.forget_head()
        self._out.clear()
        self._cancel_turn()
        self._kept = b""

    # --- flow -----------------------------------------------------------------------

    def pause_writing(self) -> None:
        """Read no more from a peer that sends requests and reads no answers."""
        if self.state in (_HEAD, State.YIELDED):
            self._cancel_turn()
            self.state = State.WRITE_BLOCKED
            self.transport.pause_reading()
            self.deadline = self._edge.tick + budgets.UNREAD_TIME
        elif self.state is State.DISCARDING:
            self.deadline = self._edge.tick + budgets.UNREAD_TIME

    def resume_writing(self) -> None:
        """Read on."""
        if self.state is State.WRITE_BLOCKED:
            if self._kept:
                self._yield(self._kept)
                self._turn = self.loop.call_soon(self._take_turn)
            else:
                self.state = self._reading
                self.deadline = self._edge.tick + budgets.IDLE_TIME
                self._wait()
                self.transport.resume_reading()
        elif self.state is State.DISCARDING:
            self.deadline = self._edge.tick + budgets.DISCARD_TIME

    def _yield(self, rest: bytes) -> None:
        """Leave the rest to the next turn of the loop (R47)."""
        self.state = State.YIELDED
        self.deadline = self._edge.tick + budgets.IDLE_TIME
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
        """Answer what is complete; the answers leave together, see `Edge.send_soon`."""
        state = self.state
        if state is _HEAD or state is _DRAINING:
            self._read(data)
        elif state is State.DISCARDING:
            self._discarded += len(data)
            if self._discarded > budgets.DISCARD_BYTES:
                self.abort()
        elif state is State.YIELDED or state is State.WRITE_BLOCKED:
            # Read before reading was paused.
            self._kept += data
            if len(self._kept) > budgets.KEPT_BYTES:
                self.abort()

    def _read(self, data: bytes) -> None:
        """Answer the heads in `data`, as many as one turn may."""
        at, size = 0, len(data)
        self.decided = 0
        while at < size:
            if self.decided == budgets.CHECKS_PER_TURN and self.state is _HEAD:
                if size - at <= budgets.KEPT_BYTES:
                    self._yield(data[at:])
                    break
                # Too much to keep: one more is answered, and says that it is the last.
                self.state = _DRAINING
            at = self.read_head(data, at)
            if self.is_last:
                break
        self._settle(size - at)

    def _settle(self, rest: int) -> None:
        """See to answers and times when all was read that this turn may.

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
            self._edge.send_soon(self, self.decided)
        # Behind the sending, which may find that the peer reads no answers.
        if self.state is State.YIELDED:
            self._turn = self.loop.call_soon(self._take_turn)

    def _wait(self) -> None:
        """Set the time for the next head, or for the end of one that has begun."""
        tick = self._edge.tick
        if self.decided:
            self.deadline = tick + budgets.IDLE_TIME
        if self.head_bytes:
            self.deadline = min(self.deadline, tick + budgets.HEAD_TIME)

    # --- answers --------------------------------------------------------------------

    def answer_head(self) -> None:
        """Answer the head at hand."""
        noted = self.noted
        if (
            len(noted) == 1
            and noted[0] == self._host
            and self.target in self._gate.paths.by_target
            and len(self.headers) <= budgets.HEADERS
            and self.state is _HEAD
            and self.parser.should_keep_alive()
        ):
            # The connection itself is the request that the gate reads.
            answer = self._gate.answer(self)
            self._out.append(answer.head)
            if answer.body and self.method != b"HEAD":
                self._out.append(answer.body)
        else:
            self._answer_with_care()

    def _answer_with_care(self) -> None:
        """Answer a head that may have a fault, or be the last of its connection (R45)."""
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
            answer = self._gate.answer(self)
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
        """Send the answers that were decided."""
        out = self._out
        if out:
            data = out[0] if len(out) == 1 else b"".join(out)
            # First, for a write may end in `pause_writing`.
            out.clear()
            self.transport.write(data)

    def refuse(self, words: bytes) -> None:
        """Refuse a head behind the answers to those before it; it is the last."""
        self._out.append(words)
        self.state = State.DISCARDING
        self.is_last = True
        self.forget_head()

    def _finish(self, rest: int) -> None:
        """Send the last answer, and end: at once where no byte may follow."""
        if self.state is State.CLOSING and not rest:
            self._close()
            return
        self.state = State.DISCARDING
        self.deadline = self._edge.tick + budgets.DISCARD_TIME
        # What was read already costs nothing more: it ends nothing before the answer left.
        self._discarded = rest
        self.send()
        transport = self.transport
        if transport.is_closing():
            return
        transport.resume_reading()
        if transport.can_write_eof():
            transport.write_eof()

    def _close(self) -> None:
        """Send what was decided and close; `expire` aborts if it is not read."""
        self._cancel_turn()
        self.state = State.CLOSING
        self.deadline = self._edge.tick + budgets.UNREAD_TIME
        self.send()
        self.transport.close()
