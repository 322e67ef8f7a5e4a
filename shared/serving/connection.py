"""One connection: bytes to requests, within the port's budgets (decision 0023).

`shared/serving/states.py` has the table of states and events.

This file is over 400 lines: it is one state machine. Bodies, heads, unread answers and
timers have modules of their own.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import TYPE_CHECKING

from shared.serving import heads
from shared.serving.body import Body
from shared.serving.deadline import Deadline
from shared.serving.head_reader import HeadReader
from shared.serving.states import ENDING, State
from shared.serving.unread import UnreadAnswers
from shared.serving.workers.places import (
    UNIX_PEER,
    CrowdedError,
    UnnamedPeerError,
    count_as,
    read_peer,
)
from shared.serving.writes import Writes

if TYPE_CHECKING:
    from shared.serving.port import Port
    from shared.serving.requests import Requests


class Connection(asyncio.BufferedProtocol):
    """One connection.

    Args:
        port: the state that all connections of one port share.
        make_requests: makes the protocol that passes requests to the application.
        loop: the event loop it lives in.
    """

    def __init__(
        self,
        port: Port,
        make_requests: Callable[[Connection], Requests],
        loop: asyncio.AbstractEventLoop,
    ) -> None:
        self._port = port
        self._limits = port.limits
        self._make_requests = make_requests
        self._loop = loop
        self._transport: asyncio.Transport
        self._unread: UnreadAnswers
        self._writes: Writes | None = None
        self._requests: Requests | None = None
        self._place = ""
        self.state = State.HEAD
        self._head = HeadReader(port.limits)
        self._kept = b""
        self._is_last = False
        self._body = Body(port)
        self._application_paused_at: float | None = None
        self._is_reading = True
        self._is_unread = False
        self._discarded = 0
        self._deadline = Deadline(loop, self._on_time)

    # --- begin and end --------------------------------------------------------------

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Take a place, or refuse."""
        self._transport = transport
        self._unread = UnreadAnswers(transport)
        # Any answer that a peer does not take at once counts as unread. With a higher
        # mark, answers below it would wait uncounted: 13 MB of 200 connections at
        # 64 KiB (R44).
        transport.set_write_buffer_limits(high=0)
        try:
            host, number = read_peer(transport)
        except UnnamedPeerError:
            self.abort("unnamed")
            return
        self._writes = Writes(transport, self._loop, self)
        place = count_as(host)
        try:
            self._port.places.take(place)
        except CrowdedError as error:
            self._refuse(heads.RefusedError(heads.CROWDED, str(error)))
            return
        self._place = place
        self._requests = self._make_requests(self)
        self._requests.answers_once = self._is_last
        client = None if host == UNIX_PEER else (host, number)
        self._requests.begin(self._writes, client)
        self._deadline.set_in(self._limits.head_time)

    def connection_lost(self, exc: Exception | None) -> None:
        """Release everything this connection holds."""
        self._end()
        requests, self._requests = self._requests, None
        if requests is not None:
            requests.connection_lost(exc)
        # References to this object are dropped here, because the collector runs seldom
        # (`shared.collector`) and an attacker could make garbage wait for it: 25 MB
        # instead of 5.
        writes, self._writes = self._writes, None
        if writes is not None:
            writes.release()
        if self._place:
            self._port.places.release(self._place)
            self._place = ""

    def eof_received(self) -> bool:
        """Close; written answers are still sent if the peer reads."""
        if self.state is not State.ENDED:
            self._close()
        return False

    def answer_once(self) -> None:
        """Begin to drain: the next answer is the last."""
        self._is_last = True
        requests = self._requests
        if requests is not None:
            requests.answers_once = True
            requests.answer_last()

    def shutdown(self) -> None:
        """End the drain: the request under way is the last."""
        requests = self._requests
        if requests is None:
            return
        if self.state in ENDING:
            if not self.unread:
                self.abort()
        elif requests.is_answering:
            self._is_last = True
            requests.answer_last()
        elif self.state is State.HEAD:
            self._close()
        else:
            self.finish()

    def abort(self, reason: str = "") -> None:
        """End at once, because a close would wait until the peer has read (R46).

        Args:
            reason: counted and logged.
        """
        if self.state is State.ENDED:
            return
        if reason:
            self._port.note(reason, self._loop.time())
        self._end()
        self._transport.abort()

    def finish(self) -> None:
        """End after the written answers, and drop bytes that still arrive."""
        if self.state in ENDING:
            return
        self._flush()
        self.state = State.DISCARDING
        self._kept = b""
        self._head.clear()
        self._body.release()
        self._port.add_ending(self)
        if self._transport.is_closing():
            return
        if not self._transport.can_write_eof():
            self._close()
            return
        self._transport.write_eof()
        self._await_end()
        self._read_or_rest()

    def _close(self) -> None:
        """Send the written answers and close; the timer aborts if they are not read."""
        if self.state is not State.DISCARDING:
            self._flush()
            self._port.add_ending(self)
        self.state = State.CLOSING
        self._kept = b""
        self._await_end()
        self._transport.close()

    def _end(self) -> None:
        self.state = State.ENDED
        self._kept = b""
        self._head.clear()
        self._body.release()
        self._port.forget(self)
        self._deadline.stop()

    def _refuse(self, error: heads.RefusedError) -> None:
        """Answer with the error's words and end; abort where no answer is allowed."""
        requests = self._requests
        if requests is not None and requests.has_begun_answer:
            self.abort(error.reason)
            return
        self._port.note(error.reason, self._loop.time())
        is_answered = False
        if requests is not None:
            is_answered = self.state is State.BODY and not requests.is_answering
            requests.drop()
        if self._writes is not None and not is_answered:
            headers = requests.headers if requests is not None else ()
            self._writes.write(heads.echo_request_id(error.words, headers))
        self.finish()

    # --- reading --------------------------------------------------------------------

    def get_buffer(self, sizehint: int) -> memoryview:
        """Return the buffer of the next read."""
        return self._port.read_into

    def buffer_updated(self, nbytes: int) -> None:
        """Take the bytes that were read."""
        if self.state is State.DISCARDING:
            self._discarded += nbytes
        elif self.state in (State.HEAD, State.BODY):
            self._read(bytes(self._port.read_into[:nbytes]))
        elif self.state is State.ANSWERING:
            # Kept until the answer is complete; nothing else is read meanwhile.
            self._kept += bytes(self._port.read_into[:nbytes])
        self._read_or_rest()

    def _read(self, data: bytes) -> None:
        try:
            while data:
                if self.state is State.BODY:
                    data = self._read_body(data)
                elif self.state is State.HEAD and not self._is_unread:
                    data = self._read_head(data)
                else:
                    break
        except heads.RefusedError as error:
            self._refuse(error)
            return
        if self.state not in ENDING:
            self._kept = data

    def _read_head(self, data: bytes) -> bytes:
        """Add bytes to the head; return those after its end."""
        is_first = not self._head
        head, rest = self._head.read(data)
        if head:
            self._begin_request(head)
        elif is_first:
            self._deadline.set_by(self._limits.head_time)
        return rest

    def _begin_request(self, head: bytes) -> None:
        requests = self._requests
        if requests is None:
            return
        self._deadline.clear()
        requests.read_head(head)
        if requests.is_whole:
            self.state = State.ANSWERING
            return
        self.state = State.BODY
        self._body.begin(self._loop.time())
        self._deadline.set_in(self._limits.body_time)

    def _read_body(self, data: bytes) -> bytes:
        """Pass on a piece of the body; return the bytes that were not read."""
        requests = self._requests
        if requests is None:
            return b""
        rest = self._body.read(requests, data)
        if requests.is_whole:
            self._end_body(requests)
        else:
            self._await_body()
        return rest

    def _end_body(self, requests: Requests) -> None:
        if requests.is_answering:
            self.state = State.ANSWERING
            self._deadline.clear()
        elif self._is_last:
            self.finish()
        else:
            self._await_head()

    # --- the application ------------------------------------------------------------

    def answered(self) -> None:
        """Go on after a complete answer."""
        requests = self._requests
        if requests is None or self.state in ENDING:
            return
        self._body.release()
        self._application_paused_at = None
        if (
            self.state is State.BODY
            and not self._is_last
            and self._body.is_rest_short(requests)
        ):
            # The rest of the body is read and dropped, within its time.
            self._await_body()
        elif self.state is State.ANSWERING and not self._is_last:
            self._await_head()
        else:
            self.finish()
        self._read_or_rest()

    def set_application_paused(self, *, is_paused: bool) -> None:
        """Record whether the application takes more of a body.

        While it does not, the peer's time does not pass.
        """
        now = self._loop.time()
        if is_paused:
            self._application_paused_at = now
            if self.state is State.BODY and not self._is_unread:
                self._deadline.clear()
        elif self._application_paused_at is not None:
            self._body.grant(now - self._application_paused_at)
            self._application_paused_at = None
            if self.state is State.BODY:
                self._await_body()
        self._read_or_rest()

    def may_write(self) -> bool:
        """Return whether an answer may still be sent."""
        return self.state not in ENDING

    def _flush(self) -> None:
        if self._writes is not None:
            self._writes.flush()

    # --- flow -----------------------------------------------------------------------

    @property
    def unread(self) -> int:
        """Bytes of answers that the peer has not taken."""
        return self._unread.held

    def pause_writing(self) -> None:
        """Pause the application, because the peer does not read."""
        self._is_unread = True
        if self._requests is not None:
            self._requests.pause_writing()
        if self.state is not State.ENDED:
            now = self._loop.time()
            self._await_reader()
            self._port.add_unread(self, now)
            self._read_or_rest()

    def resume_writing(self) -> None:
        """Resume the application, because the peer reads again."""
        self._is_unread = False
        self._port.remove_unread(self)
        if self._requests is not None:
            self._requests.resume_writing()
        if self.state is State.HEAD:
            self._await_head()
        elif self.state is State.BODY:
            self._await_body()
        elif self.state is State.ANSWERING:
            self._deadline.clear()
        self._read_or_rest()

    def _read_or_rest(self) -> None:
        """Read while the bytes can be used or must be dropped."""
        if self.state is State.DISCARDING:
            # Beyond the budget nothing is read; the timer ends it.
            wants = self._discarded <= self._limits.discard_bytes
        else:
            wants = (
                self.state in (State.HEAD, State.BODY, State.ANSWERING)
                and self._application_paused_at is None
                and not self._kept
                and not (self._is_unread and self.state is State.HEAD)
            )
        if wants is self._is_reading or self.state in (State.CLOSING, State.ENDED):
            return
        self._is_reading = wants
        if wants:
            self._transport.resume_reading()
        else:
            self._transport.pause_reading()

    # --- time -----------------------------------------------------------------------

    def _await_head(self) -> None:
        self.state = State.HEAD
        if self._requests is not None:
            self._requests.forget_head()
        if self._is_unread:
            # No further request until the peer has read; see `resume_writing`.
            return
        self._deadline.set_in(self._limits.idle_time)
        if self._kept:
            # In its own turn of the loop, so that other connections get theirs.
            self._loop.call_soon(self._read_kept)

    def _read_kept(self) -> None:
        if self.state is State.HEAD and self._kept and not self._is_unread:
            data, self._kept = self._kept, b""
            self._read(data)
            self._read_or_rest()

    def _await_body(self) -> None:
        """Set the time for the rest of a body; each byte received extends it."""
        if self._is_unread or self._application_paused_at is not None:
            return
        came = self._requests.body_bytes if self._requests is not None else 0
        self._deadline.set_at(self._body.deadline(came))

    def _await_reader(self) -> None:
        self._unread.start()
        self._deadline.set_in(self._limits.unread_time)

    def _await_end(self) -> None:
        if self.unread:
            self._await_reader()
        else:
            self._unread.stop()
            self._deadline.set_in(self._limits.discard_time)

    def _on_time(self) -> None:
        if self.state in ENDING:
            self._expire_end()
        elif self._is_unread:
            self._expire_reader()
        elif self.state is State.HEAD and not self._head:
            self._close()
        else:
            reason = "head_time" if self.state is State.HEAD else "body_time"
            self._refuse(heads.RefusedError(heads.TIMED_OUT, reason))

    def has_taken_some(self) -> bool:
        """Return whether the peer took any waiting bytes since the last call."""
        return self._unread.has_fallen()

    def _expire_reader(self) -> None:
        if self.unread and self._unread.taken() < self._limits.unread_step:
            self.abort("unread")
        else:
            self._await_reader()

    def _expire_end(self) -> None:
        if self.unread:
            self._expire_reader()
        elif self._unread.is_counting:
            # The answer was sent only now.
            self._await_end()
        else:
            self.abort()
