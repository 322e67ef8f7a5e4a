"""Collects the bytes of one head until its empty line, within its budgets."""

from __future__ import annotations

from typing import Final

from shared.serving import heads
from shared.serving.limits import Limits

_END: Final = b"\r\n\r\n"
_LINE_END: Final = b"\r\n"


class HeadReader:
    """The head being read; the parser gets it once it is complete.

    So its size is known exactly, and the parser never buffers an endless line.
    """

    def __init__(self, limits: Limits) -> None:
        self._limits = limits
        self._head = bytearray()
        self._has_skipped_line = False

    def __bool__(self) -> bool:
        """Return whether part of a head has arrived."""
        return bool(self._head) or self._has_skipped_line

    def clear(self) -> None:
        """Drop the bytes read so far."""
        self._head.clear()
        self._has_skipped_line = False

    def read(self, data: bytes) -> tuple[bytes, bytes]:
        """Add bytes; return the complete head and the bytes after it.

        Returns:
            An empty head while it is not complete.

        Raises:
            RefusedError: it cannot become a head that is served.
        """
        head = self._head
        before = len(head)
        head += data
        if not self._has_skipped_line and head.startswith(_LINE_END):
            # Section 2.2 asks a server to skip one empty line before a request.
            self._has_skipped_line = True
            del head[:2]
            before = 0
        # Bytes that cannot begin a request, such as a TLS handshake, are refused
        # at once.
        if head and head != b"\r" and not 65 <= head[0] <= 90:
            raise heads.RefusedError(heads.BAD_REQUEST, "begin")
        found = head.find(_END, max(0, before - 3))
        end = found + 4 if found >= 0 else len(head)
        if end > self._limits.head_bytes:
            is_target = _LINE_END not in head[: self._limits.head_bytes]
            words = heads.TARGET_TOO_LONG if is_target else heads.HEAD_TOO_LARGE
            raise heads.RefusedError(words, "head_bytes")
        begin = before - 1 if before and head[before - 1] == 13 else before
        if heads.has_bare_end(head[begin:end]):
            raise heads.RefusedError(heads.BAD_REQUEST, "bare_end")
        if found < 0:
            return b"", b""
        whole, rest = bytes(head[:end]), bytes(head[end:])
        self.clear()
        return whole, rest
