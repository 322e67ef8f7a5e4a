"""uvicorn's HTTP protocol with the limits it lacks, for both ports (R40).

uvicorn with httptools reads a header of any size and waits for it for ever. The times of
an idle connection and of a stop are uvicorn's own.
"""

from __future__ import annotations

import asyncio
from typing import Any

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from issuer.joined_writes import JoinedWrites

_TOO_LARGE = (
    b"HTTP/1.1 431 Request Header Fields Too Large\r\nContent-Length: 0\r\n"
    b"Connection: close\r\n\r\n"
)


class HeaderTooLargeError(Exception):
    """A request's line and headers are over the limit."""


class LimitedProtocol(HttpToolsProtocol):
    """One connection.

    Attributes:
        max_header_bytes: of one request's line and headers; a token is at most 8,000.
        max_headers: their number.
        header_timeout: seconds from the connection's begin, or from a request's first
            byte, to its last header.
        body_timeout: seconds from there to the end of its body.
    """

    max_header_bytes = 16_384
    max_headers = 100
    header_timeout = 10.0
    body_timeout = 120.0

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._timer: asyncio.TimerHandle | None = None
        self._awaits_header = True
        # Bytes of a header without an end, as they came: the parser holds an endless
        # line back.
        self._pending_bytes = 0
        self._chunk_bytes = 0
        self._is_refused = False
        self._is_too_large = False

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Begin; a connection without a request does not stay."""
        joined = JoinedWrites(transport, self.loop)
        super().connection_made(joined)  # type: ignore[arg-type]
        self._start_timer(self.header_timeout)

    def connection_lost(self, exc: Exception | None) -> None:
        """End."""
        self._stop_timer()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        """Feed the parser, then bound what it is in the middle of."""
        if self._is_refused:
            return
        self._chunk_bytes = len(data)
        super().data_received(data)
        if self._is_refused:
            return
        if not self._awaits_header:
            self._start_timer(self.body_timeout)
            return
        self._pending_bytes += self._chunk_bytes
        if self._pending_bytes > self.max_header_bytes:
            self._is_too_large = True
            self.send_400_response("")
        elif self._pending_bytes > 0:
            self._start_timer(self.header_timeout)

    def on_headers_complete(self) -> None:
        """Hand the request over when its header is within the limits."""
        self._stop_timer()
        self._awaits_header = False
        # This request alone: what was read may hold several.
        size = len(self.url) + sum(len(n) + len(v) + 4 for n, v in self.headers)
        if size > self.max_header_bytes or len(self.headers) > self.max_headers:
            self._is_too_large = True
            raise HeaderTooLargeError
        super().on_headers_complete()

    def on_message_complete(self) -> None:
        """Note a request's end."""
        self._stop_timer()
        self._awaits_header = True
        # How much of this chunk belongs to the next request is not known: none of it is
        # counted against that, which forgives it one read at most.
        self._pending_bytes = -self._chunk_bytes
        super().on_message_complete()

    def send_400_response(self, msg: str) -> None:
        """Refuse what cannot be parsed or is too large, and close."""
        self._is_refused = True
        self._stop_timer()
        if self.cycle is not None and not self.cycle.response_complete:
            # The words would stand in the middle of another answer.
            self.transport.close()
        elif self._is_too_large:
            self.transport.write(_TOO_LARGE)
            self.transport.close()
        else:
            super().send_400_response(msg)

    def _start_timer(self, seconds: float) -> None:
        if self._timer is None:
            self._timer = self.loop.call_later(seconds, self.transport.close)

    def _stop_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
