"""The public port's protocol without a socket: a transport with state, and turns."""

from __future__ import annotations

import socket
from typing import Any, NamedTuple


class FakeSocket(NamedTuple):
    """The socket of a transport."""

    family: int = socket.AF_INET


class FakeTransport:
    """A transport that keeps written bytes, and whose peer reads them or not.

    Attributes:
        protocol: called when writing is paused and resumed.
        sent: all bytes that were written.
        unread: bytes the peer has not taken; grows only while `reads` is False.
        reads: whether the peer takes written bytes.
        is_paused: whether reading is paused.
        has_eof: whether our side was shut.
        end: how it ended: empty, `close` or `abort`.
        writes: the number of writes.
    """

    def __init__(
        self,
        protocol: Any = None,
        *,
        peername: object = ("127.0.0.1", 1),
        family: int = socket.AF_INET,
    ) -> None:
        self.protocol = protocol
        self.sent = b""
        self.writes = 0
        self.unread = 0
        self.reads = True
        self.is_paused = False
        self.has_eof = False
        self.end = ""
        self.high = 65_536
        self._info = {"peername": peername, "socket": FakeSocket(family)}

    def get_extra_info(self, name: str, default: Any = None) -> Any:
        """Return the peer's name or the socket."""
        return self._info.get(name, default)

    def set_write_buffer_limits(self, high: int) -> None:
        """Set from how many unread bytes on writing is paused."""
        self.high = high

    def get_write_buffer_size(self) -> int:
        """Return how much the peer has not taken."""
        return self.unread

    def write(self, data: bytes) -> None:
        """Keep it; a write after the end or after EOF is a mistake."""
        assert not self.end, "written after the end"
        assert not self.has_eof, "written after EOF"
        self.sent += data
        self.writes += 1
        if not self.reads:
            before, self.unread = self.unread, self.unread + len(data)
            if before <= self.high < self.unread:
                self.protocol.pause_writing()

    def take(self) -> None:
        """Let the peer read all."""
        before, self.unread = self.unread, 0
        self.reads = True
        if before > self.high:
            self.protocol.resume_writing()

    def can_write_eof(self) -> bool:
        """Say yes, as TCP does."""
        return True

    def write_eof(self) -> None:
        """Shut our side."""
        assert not self.end
        self.has_eof = True

    def pause_reading(self) -> None:
        """Read no more."""
        self.is_paused = True

    def resume_reading(self) -> None:
        """Read on."""
        self.is_paused = False

    def is_closing(self) -> bool:
        """Return whether it was ended."""
        return bool(self.end)

    def close(self) -> None:
        """Note a close, which waits for the peer."""
        self.end = self.end or "close"

    def abort(self) -> None:
        """Note an abort, which does not."""
        self.end = "abort"
