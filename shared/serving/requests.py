"""The requests of one connection: uvicorn's protocol, fed with checked bytes.

uvicorn and httptools turn bytes into calls of the application, and its messages into
answers. `connection.py` reads, counts and ends; nothing here touches a socket.
"""

from __future__ import annotations

import asyncio
from typing import Any, Final, NoReturn, Protocol

import httptools
from uvicorn.config import Config
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol
from uvicorn.server import ServerState

from shared.serving import heads
from shared.serving.limits import Limits
from shared.serving.writes import Writes

#: Bytes of a body that wait for the application before no more is read.
_BODY_WAITING: Final = 4_096


class Owner(Protocol):
    """The connection."""

    def answered(self) -> None:
        """Go on after a complete answer."""

    def answer_once(self) -> None:
        """Make the next answer the last."""

    def shutdown(self) -> None:
        """End after the request under way."""


class Requests(HttpToolsProtocol):
    """One request after the other.

    Attributes:
        left: bytes of the current body that are still to come; None when chunked.
        is_whole: the current request is complete.
        body_bytes: how much of its body came.
        chunks: how many of its chunks began.
        expects_continue: the client may wait for a 100 before it sends the body.
    """

    def __init__(
        self,
        owner: Owner,
        limits: Limits,
        config: Config,
        server_state: ServerState,
        app_state: dict[str, Any],
        loop: asyncio.AbstractEventLoop,
    ) -> None:
        super().__init__(config, server_state, app_state, loop)
        # uvicorn allows bytes after a request that ends its connection. None is fed
        # here.
        self.parser.set_dangerous_leniencies(lenient_data_after_close=False)
        self._owner = owner
        self._limits = limits
        self._has_head = False
        self._is_upgrade = False
        self._is_replaying = False
        self._fault: tuple[bytes, str] | None = None
        self.forget_head()
        self.left: int | None = 0
        self.is_whole = False
        self.body_bytes = 0
        self.chunks = 0
        self.expects_continue = False
        #: the next answer is the last of its connection
        self.answers_once = False

    def begin(self, writes: Writes, client: tuple[str, int] | None) -> None:
        """Begin on an admitted connection.

        Args:
            writes: the transport for answers.
            client: its peer's address and port; None for a unix socket.
        """
        super().connection_made(writes)  # type: ignore[arg-type]
        # uvicorn asks the socket once more, which may fail by now: not a unix socket.
        self.client = client

    # --- reading --------------------------------------------------------------------

    def read_head(self, head: bytes) -> None:
        """Read one complete head and start the application's call.

        Raises:
            RefusedError: the request is not served.
        """
        heads.require_lines(head, self._limits)
        self._has_head = self.is_whole = False
        self.body_bytes = self.chunks = 0
        self._feed(head)
        if not self._has_head:
            # The parser takes it for another protocol.
            raise heads.RefusedError(heads.BAD_REQUEST, "malformed")
        if self._is_upgrade:
            self._read_without_upgrade()
        if (self.left == 0) != self.is_whole:
            # The parser found another length.
            raise heads.RefusedError(heads.BAD_REQUEST, "malformed")

    def forget_head(self) -> None:
        """Forget the headers, so that the next request is not taken for the last one.

        The application keeps those of its own request.
        """
        self.headers = []

    def read_body(self, piece: bytes) -> None:
        """Read a piece of the body.

        Raises:
            RefusedError: it is malformed, or has trailers.
        """
        try:
            self._feed(piece)
        except heads.RefusedError:
            # Bytes after a chunked body in the same piece; the connection ends here.
            if not self.is_whole:
                raise

    def _feed(self, data: bytes) -> None:
        self._fault = None
        try:
            self.parser.feed_data(data)
        except httptools.HttpParserUpgrade:
            # There is no upgrade here: the request is served without one.
            pass
        except httptools.HttpParserError:
            words, reason = self._fault or (heads.BAD_REQUEST, "malformed")
            self._fault = None
            raise heads.RefusedError(words, reason) from None

    def _read_without_upgrade(self) -> None:
        """Go on after the head of a request that asks for an upgrade.

        The request is served without the upgrade (RFC 9110, section 7.8). The parser
        would skip the body as another protocol's, and would miss a later
        `Connection: close`. A new parser is therefore brought to the same place.
        """
        framing, self._is_upgrade = self._find_framing(), False
        self.parser = httptools.HttpRequestParser(self)
        if framing:
            self._is_replaying = True
            self._feed(b"POST / HTTP/1.1\r\n" + framing + b"\r\n\r\n")
            self._is_replaying = False
        else:
            self.is_whole = True
            super().on_message_complete()

    def _find_framing(self) -> bytes:
        if self.left is None:
            return b"Transfer-Encoding: chunked"
        return b"Content-Length: %d" % self.left if self.left else b""

    def _refuse(self, words: bytes, reason: str) -> NoReturn:
        """Stop the parser, which then raises its own error.

        Only the words are kept: the frames of the error would keep this object alive.
        """
        self._fault = words, reason
        raise heads.RefusedError(words, reason)

    # --- the parser's callbacks -----------------------------------------------------

    def on_message_begin(self) -> None:
        """Begin the request; a second one in the same bytes is not read."""
        if self._is_replaying:
            return
        if self._has_head:
            self._refuse(heads.BAD_REQUEST, "malformed")
        super().on_message_begin()

    def on_url(self, url: bytes) -> None:
        """Record the target."""
        if not self._is_replaying:
            super().on_url(url)

    def on_header(self, name: bytes, value: bytes) -> None:
        """Record a header; after a body it is a trailer, which is refused."""
        if self._is_replaying:
            return
        if self._has_head:
            self._refuse(heads.BAD_REQUEST, "trailers")
        super().on_header(name, value)

    def on_headers_complete(self) -> None:
        """Pass the request to the application."""
        if self._is_replaying:
            return
        try:
            heads.require_served(
                self.parser.get_http_version(),
                self.parser.get_method(),
                self.url,
                self.headers,
                self._limits,
            )
            self.left = heads.find_length(self.headers)
            if (self.left or 0) > self._limits.body_bytes:
                raise heads.RefusedError(heads.BODY_TOO_LARGE, "body")
        except heads.RefusedError as error:
            self._refuse(error.words, error.reason)
        self._is_upgrade = self.parser.should_upgrade()
        self.expects_continue = self.expect_100_continue
        super().on_headers_complete()
        self._has_head = True
        # Only the parser knows where a chunked body ends, so nothing may follow it.
        if self.left is None or self.answers_once:
            self.cycle.keep_alive = False

    def on_chunk_header(self) -> None:
        """Count a chunk."""
        self.chunks += 1

    def on_body(self, body: bytes) -> None:
        """Pass on a piece of the body; pause reading while the application is slow."""
        self.body_bytes += len(body)
        super().on_body(body)
        if not self.cycle.response_complete and len(self.cycle.body) > _BODY_WAITING:
            self.flow.pause_reading()

    def on_message_complete(self) -> None:
        """Record that the request is complete."""
        if self._is_upgrade:
            return
        self.is_whole = True
        super().on_message_complete()

    # --- answering ------------------------------------------------------------------

    @property
    def is_answering(self) -> bool:
        """Whether the application has a request that it has not fully answered."""
        return self.cycle is not None and not self.cycle.response_complete

    @property
    def has_begun_answer(self) -> bool:
        """Whether an answer has begun, so that no other answer can be sent."""
        return self.is_answering and self.cycle.response_started

    def answer_last(self) -> None:
        """Mark the current answer as the last one, if it has not begun."""
        if self.is_answering:
            self.cycle.keep_alive = False

    def answer_once(self) -> None:
        """Begin to drain: the next answer is the last."""
        self._owner.answer_once()

    def drop(self) -> None:
        """Report to the application that the client has disconnected."""
        if self.is_answering:
            self.cycle.disconnected = True
            self.cycle.message_event.set()
            self.flow.resume_writing()

    def on_response_complete(self) -> None:
        """Go on; the connection measures idle time, not uvicorn."""
        self.server_state.total_requests += 1
        self.flow.resume_reading()
        self._owner.answered()

    def shutdown(self) -> None:
        """End the drain."""
        self._owner.shutdown()
