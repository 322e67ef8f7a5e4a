"""The fast path: check requests answered straight from the parser's callbacks.

A subclass of uvicorn's `HttpToolsProtocol`, handed to uvicorn as its documented `http=`
class. It answers `/verify/...` without building an ASGI task, and leaves every other
path to the application. The same gate stands behind both; one contract test holds both
to the same answers.

It also sets the limits that uvicorn with httptools lacks (R40): bytes and number of
headers, time to a complete header, idle time, connections.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any, Final

import httptools
from uvicorn.config import Config
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol
from uvicorn.server import ServerState

from verifier.answers import REFUSALS_WITHOUT_BODY, Answer
from verifier.denials import DenyReason
from verifier.edge import Edge
from verifier.forward_auth import PREFIX

#: Bytes of one request's line and headers; a token is at most 8,000 of them.
MAX_HEADER_BYTES: Final = 16_384
MAX_HEADERS: Final = 100
#: Seconds from a request's first byte, or from the connection's begin, to its last header.
HEADER_TIMEOUT: Final = 5.0
#: Seconds a connection may stay without a new request; above nginx' 60 s.
IDLE_TIMEOUT: Final = 75.0

_BAD_REQUEST: Final = (
    b"HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"
)
_TOO_LARGE: Final = (
    b"HTTP/1.1 431 Request Header Fields Too Large\r\nContent-Length: 0\r\n"
    b"Connection: close\r\n\r\n"
)
_CLOSE: Final = b"Connection: close\r\n\r\n"


class HeaderTooLargeError(Exception):
    """A request's line and headers are over the limit."""


def _taker(taken: list[tuple[bytes, bytes]]) -> Callable[[bytes, bytes], None]:
    """Return the parser's callback that takes each header into the list."""
    append = taken.append

    def on_header(name: bytes, value: bytes) -> None:
        append((name.lower(), value))

    return on_header


def _is_check(url: bytes) -> bool:
    """Tell whether this is a check whose target the parser would not read differently."""
    return url.startswith(PREFIX) and b"#" not in url and url.isascii()


class GateProtocol(HttpToolsProtocol):
    """One connection.

    It is itself what the gate reads of a check request: method, target, headers and
    whether the peer is trusted stand for the request at hand.

    Attributes:
        deadline: monotonic seconds after which it is closed.
        target: the raw path and query of the request at hand.
    """

    def __init__(
        self,
        config: Config,
        server_state: ServerState,
        app_state: dict[str, Any],
        _loop: asyncio.AbstractEventLoop | None = None,
    ) -> None:
        #: name in lower case and value of each header so far
        self._taken: list[tuple[bytes, bytes]] = []
        # The parser looks its callbacks up once. This one is called for every header:
        # as a closure it costs a third less than as a method.
        self.on_header: Any = _taker(self._taken)
        super().__init__(config, server_state, app_state, _loop)
        self._edge: Edge = app_state["edge"]
        self._answer = self._edge.gate.answer
        self._posts = self._edge.gate.posts
        self.target = b""
        self.peer_is_trusted = False
        self._is_fast = False
        self._is_in_header = False
        self._is_closing = False
        self._is_draining = False
        self._chunk_bytes = 0
        self._pending_bytes = 0
        self._out: list[bytes] = []
        self.deadline = 0.0

    @property
    def method(self) -> bytes:
        """The method of the request at hand."""
        method: bytes = self.parser.get_method()
        return method

    # --- the connection -------------------------------------------------------------

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Begin; refuse at once when there are too many."""
        super().connection_made(transport)
        edge = self._edge
        self.deadline = edge.tick + HEADER_TIMEOUT
        edge.connections.add(self)
        if len(edge.connections) > edge.max_connections:
            edge.gate.counts[DenyReason.OVERLOADED] += 1
            self._is_closing = True
            transport.write(
                REFUSALS_WITHOUT_BODY[DenyReason.OVERLOADED].head[:-2] + _CLOSE
            )
            transport.close()
            return
        self.peer_is_trusted = edge.is_trusted(self.client[0] if self.client else None)

    def expire(self) -> None:
        """Close: the time for the next header is up."""
        self.transport.close()

    def abort(self) -> None:
        """End at once: a close would wait until the peer has read (R46)."""
        self._is_closing = True
        self._out.clear()
        self.transport.abort()

    def connection_lost(self, exc: Exception | None) -> None:
        """End."""
        self._edge.connections.discard(self)
        super().connection_lost(exc)

    def pause_writing(self) -> None:
        """Read no more from a peer that sends requests and reads no answers."""
        super().pause_writing()
        self.transport.pause_reading()

    def resume_writing(self) -> None:
        """Read on."""
        super().resume_writing()
        self.transport.resume_reading()

    def shutdown(self) -> None:
        """Drain: what is half received is still answered, then the connection ends."""
        if self._is_in_header:
            self._is_draining = True
            return
        self.send()
        super().shutdown()

    def data_received(self, data: bytes) -> None:
        """Feed the parser; answers to all requests in `data` leave in one write.

        They leave with those of other connections, see `Edge.send_soon`.
        """
        if self._is_closing:
            return
        if self.timeout_keep_alive_task is not None:
            self._unset_keepalive_if_required()
        self._chunk_bytes = len(data)
        while data:
            try:
                self.parser.feed_data(data)
                break
            except httptools.HttpParserUpgrade as upgrade:
                # The parser stops behind a request that asks for an upgrade. There is
                # none here: the next request follows.
                data = data[upgrade.args[0] :]
            except httptools.HttpParserError as error:
                is_large = isinstance(error.__context__, HeaderTooLargeError)
                self._end(_TOO_LARGE if is_large else _BAD_REQUEST)
                break
        if self._is_in_header:
            self._wait_for_the_rest()
        if self._is_closing:
            self.send()
            self.transport.close()
        elif self._out:
            self._edge.send_soon(self)

    def _wait_for_the_rest(self) -> None:
        """What is left is a header without an end: bound its bytes and its time.

        Its bytes are counted as they came, for the parser holds an endless line back.
        """
        self._pending_bytes += self._chunk_bytes
        if self._pending_bytes > MAX_HEADER_BYTES:
            self._end(_TOO_LARGE)
        self.deadline = min(self.deadline, self._edge.tick + HEADER_TIMEOUT)

    # --- the parser's callbacks -----------------------------------------------------

    def on_message_begin(self) -> None:
        """Begin a request; what only the application needs is built later."""
        self.url = b""
        self._taken.clear()
        self.headers = self._taken
        self._is_in_header = True

    def on_url(self, url: bytes) -> None:
        """Take a piece of the request target."""
        self.url += url

    def on_headers_complete(self) -> None:
        """Answer a check at once; hand everything else to the application.

        An announced body is not waited for: gateways announce bodies that never come.
        """
        if (
            self._chunk_bytes > MAX_HEADER_BYTES
            or self._pending_bytes > 0
            or len(self._taken) > MAX_HEADERS
        ):
            self._check_size()
        self._is_in_header = False
        # How much of this chunk belongs to the next request is not known: none of it
        # is counted against that, which forgives it one read at most.
        self._pending_bytes = -self._chunk_bytes
        self.deadline = self._edge.tick + IDLE_TIMEOUT
        if self._is_closing:
            return
        url = self.url
        # A request behind one the application has not answered yet waits its turn there.
        self._is_fast = (url in self._posts or _is_check(url)) and (
            self.cycle is None or self.cycle.response_complete
        )
        if not self._is_fast:
            self._hand_over()
            return
        # The connection itself is the request that the gate reads.
        self.target = url
        answer = self._answer(self)
        keeps = self.parser.should_keep_alive() and not self._is_draining
        self._out.append(answer.head if keeps else self._close_after(answer))
        if answer.body and self.method != b"HEAD":
            self._out.append(answer.body)

    def _check_size(self) -> None:
        """Count this request alone: what was read may hold several."""
        size = len(self.url) + sum(len(n) + len(v) + 4 for n, v in self._taken)
        if size > MAX_HEADER_BYTES or len(self._taken) > MAX_HEADERS:
            raise HeaderTooLargeError

    def _hand_over(self) -> None:
        # The application writes by itself: what was asked before is answered before.
        self.send()
        url = self.url
        super().on_message_begin()
        self.url = url
        self.headers.extend(self._taken)
        self.expect_100_continue = (b"expect", b"100-continue") in self._taken
        super().on_headers_complete()

    def on_body(self, body: bytes) -> None:
        """Pass a body on to the application; a check's is not read."""
        if not self._is_fast and not self._is_closing:
            super().on_body(body)

    def on_message_complete(self) -> None:
        """Note a request's end."""
        if not self._is_fast and not self._is_closing:
            super().on_message_complete()

    # --- answers --------------------------------------------------------------------

    def send(self) -> None:
        """Send the answers that were decided."""
        out = self._out
        if out:
            self.transport.write(out[0] if len(out) == 1 else b"".join(out))
            out.clear()

    def _close_after(self, answer: Answer) -> bytes:
        """Return the answer's head for the last answer of this connection."""
        self._is_closing = True
        return answer.head[:-2] + _CLOSE

    def _end(self, last_words: bytes) -> None:
        """Refuse what cannot be parsed and close; earlier answers go out first."""
        if not self._is_closing:
            self._is_closing = True
            self._out.append(last_words)
