"""Counts the bytes of answers that a peer has not read (R46)."""

from __future__ import annotations

import asyncio
import fcntl
import sys
import termios


class UnreadAnswers:
    """The answers to one peer that it has not read.

    Args:
        transport: of the connection.
    """

    def __init__(self, transport: asyncio.Transport) -> None:
        self._transport = transport
        self._at_start = 0
        self._at_last_look = 0

    @property
    def held(self) -> int:
        """Bytes that the kernel has not taken from this process."""
        return int(self._transport.get_write_buffer_size())

    @property
    def is_counting(self) -> bool:
        """Whether bytes were unread when the count was started."""
        return self._at_start > 0

    def start(self) -> None:
        """Count from now on how much the peer takes."""
        self._at_start = self._at_last_look = self.count()

    def stop(self) -> None:
        """End the count."""
        self._at_start = 0

    def taken(self) -> int:
        """Return how many bytes the peer took since the start."""
        return self._at_start - self.count()

    def has_fallen(self) -> bool:
        """Return whether the peer took any waiting bytes since the last call."""
        now = self.count()
        has_fallen, self._at_last_look = now < self._at_last_look, now
        return has_fallen

    def count(self) -> int:
        """Return the bytes that the peer has not acknowledged, here and in the kernel.

        The kernel takes bytes of ours in lumps of up to 1.5 MB on a fast network, so
        without its share a slow reader would seem to read nothing.
        """
        try:
            descriptor = self._transport.get_extra_info("socket").fileno()
            queued = fcntl.ioctl(descriptor, termios.TIOCOUTQ, b"\0" * 4)
        except OSError:
            queued = b"\0" * 4
        return self.held + int.from_bytes(queued, sys.byteorder)
