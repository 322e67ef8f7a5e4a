"""Splits bytes into heads: each is cut at its empty line and fed to the parser alone.

No other byte is ever parsed. So the size of a head is known exactly, answers are in the
order of the heads, and bytes after the last head are never read as one (R44, R45).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

import httptools

from verifier.wire import budgets, heads

_END: Final = b"\r\n\r\n"
_UPPER_A: Final = 0x41
_UPPER_C: Final = 0x43
_UPPER_Z: Final = 0x5A

Header = tuple[bytes, bytes]


def _taker(taken: list[Header], noted: list[Header]) -> Callable[[bytes, bytes], None]:
    """Return the parser's callback: it stores each header, and those of `NOTED`
    twice.
    """
    names = heads.NOTED

    def on_header(name: bytes, value: bytes) -> None:
        # Compiled, a method of a list is called faster than a variable that holds it.
        lower_name = name.lower()
        header = (lower_name, value)
        taken.append(header)
        if lower_name in names:
            noted.append(header)

    return on_header


class HeadReader:
    """Reads the heads of one connection; a subclass answers them.

    Attributes:
        target: the raw path and query of the current request.
        headers: its headers, names in lower case, in order.
        noted: those in `heads.NOTED`.
        decided: heads answered in this turn.
        head_bytes: bytes received of an unfinished head.
        is_last: no further head is read.
    """

    def __init__(self) -> None:
        self.target = b""
        self.headers: list[Header] = []
        self.noted: list[Header] = []
        self.decided = 0
        self.head_bytes = 0
        self.is_last = False
        #: the last bytes of an unfinished head, to find its end
        self._tail = b""
        # The parser looks up its callbacks once. This one is called for every header,
        # and a closure costs a third less than a method.
        self.on_header: Any = _taker(self.headers, self.noted)
        self.parser: Any = httptools.HttpRequestParser(self)

    # --- implemented by `GateProtocol` ----------------------------------------------
    # These are reached only when a subclass lacks one; it fails at once then.

    def answer_head(self) -> None:
        """Answer the current head; set `is_last` when no other may follow."""
        raise NotImplementedError

    def refuse(self, words: bytes) -> None:
        """Refuse a head after the answers to earlier ones; it is the last."""
        raise NotImplementedError

    def abort(self) -> None:
        """End the connection at once."""
        raise NotImplementedError

    # --- reading --------------------------------------------------------------------

    def read_head(self, data: bytes, at: int) -> int:
        """Read the head that begins or continues at `at`; return where it ends."""
        end = data.find(_END, at) + 4
        if (
            end < 4
            or self.head_bytes
            or end - at > budgets.HEAD_BYTES
            or not _UPPER_C < data[at] <= _UPPER_Z
        ):
            return self._read_piece(data, at)
        self._feed(data if end - at == len(data) else data[at:end], is_end=True)
        return end

    def _read_piece(self, data: bytes, at: int) -> int:
        """Read an incomplete or unusual head; return the position after it."""
        if not self.head_bytes:
            # An empty line before it is refused too. RFC 9112, section 2.2, lets a
            # server skip one, but no gateway sends it.
            if not _UPPER_A <= data[at] <= _UPPER_Z:
                self.refuse(heads.BAD_REQUEST)
                return at
            if data[at] == _UPPER_C:
                self.noted.append(heads.CONNECT_MARK)
        tail = self._tail
        found = (tail + data[at : at + 3]).find(_END) if tail else -1
        end = at + found - len(tail) if found >= 0 else data.find(_END, at)
        is_end = found >= 0 or end >= 0
        end = end + 4 if is_end else len(data)
        self.head_bytes += end - at
        if self.head_bytes > budgets.HEAD_BYTES:
            self.refuse(heads.TOO_LARGE)
            return at
        piece = data[at:end]
        self._tail = b"" if is_end else (tail + piece)[-3:]
        self._feed(piece, is_end=is_end)
        if is_end:
            self.head_bytes = 0
        elif len(self.headers) > budgets.HEADERS and not self.is_last:
            # Refuse now: the peer may leave the head unfinished, and each empty header
            # takes forty times its bytes in memory.
            self.refuse(heads.TOO_LARGE)
        return end

    def _feed(self, piece: bytes, *, is_end: bool) -> None:
        """Feed a head or a piece of one, and check that the parser finds the same
        end.
        """
        before = self.decided
        fault = b""
        try:
            self.parser.feed_data(piece)
        except httptools.HttpParserUpgrade:
            # The parser stops after a request for an upgrade. No upgrade is made, so
            # the next request follows.
            pass
        except httptools.HttpParserError:
            fault = heads.BAD_REQUEST
        if is_end:
            self.forget_head()
        if self.is_last:
            return
        if self.decided == before:
            # This includes the preface of HTTP/2, which the parser takes for an
            # upgrade.
            if fault or is_end:
                self.refuse(heads.BAD_REQUEST)
        elif fault or not is_end:
            # The head was answered, but the parser sees another end: give no second
            # answer.
            self.abort()

    def forget_head(self) -> None:
        """Drop the current head, so an idle connection holds no memory for it."""
        self.target = b""
        self.headers.clear()
        self.noted.clear()

    # --- the parser's callbacks -----------------------------------------------------

    def on_url(self, url: bytes) -> None:
        """Append a piece of the request target."""
        self.target += url

    def on_headers_complete(self) -> None:
        """Answer the head; a check has no body."""
        self.decided += 1
        self.answer_head()
