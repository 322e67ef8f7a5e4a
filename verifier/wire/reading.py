"""From bytes to heads: each is cut out at its empty line and fed to the parser alone.

No other byte is ever parsed. So a head's size is known exactly, its answer stands where
the head stood, and what follows the last one is never read as a head (R44, R45).
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
    """Return the parser's callback that takes each header, and notes some of them."""
    take, note, is_noted = taken.append, noted.append, heads.NOTED.__contains__

    def on_header(name: bytes, value: bytes) -> None:
        header = (name.lower(), value)
        take(header)
        if is_noted(header[0]):
            note(header)

    return on_header


class HeadReader:
    """Reads the heads of one connection; a subclass answers them.

    Attributes:
        target: the raw path and query of the request at hand.
        headers: its headers, names in lower case, in order.
        noted: those of them that are in `heads.NOTED`.
        decided: heads that were answered in this turn.
        head_bytes: bytes of a half-received head.
        is_last: no further head is read.
    """

    def __init__(self) -> None:
        self.target = b""
        self.headers: list[Header] = []
        self.noted: list[Header] = []
        self.decided = 0
        self.head_bytes = 0
        self.is_last = False
        #: the last bytes of a half-received head, to find its end by
        self._tail = b""
        # The parser looks its callbacks up once. This one is called for every header:
        # as a closure it costs a third less than as a method.
        self.on_header: Any = _taker(self.headers, self.noted)
        self.parser: Any = httptools.HttpRequestParser(self)

    # --- what a subclass does -------------------------------------------------------
    # A base is never used by itself; `GateProtocol` has all three.

    def answer_head(self) -> None:
        """Answer the head at hand; set `is_last` when no other may follow."""
        raise NotImplementedError

    def refuse(self, words: bytes) -> None:
        """Refuse a head behind the answers to those before it; it is the last."""
        raise NotImplementedError

    def abort(self) -> None:
        """End at once."""
        raise NotImplementedError

    # --- reading --------------------------------------------------------------------

    def read_head(self, data: bytes, at: int) -> int:
        """Read the head that begins or goes on at `at`; return where it ends."""
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
        """Read a head that is not whole, or begins or ends as few do; return its end."""
        if not self.head_bytes:
            # Not even an empty line before it, which section 2.2 lets a server skip: no
            # gateway sends one.
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
            # Now, for a peer may let the head wait here: each empty header takes forty
            # times its bytes.
            self.refuse(heads.TOO_LARGE)
        return end

    def _feed(self, piece: bytes, *, is_end: bool) -> None:
        """Feed the parser a head or a piece of one, and see that both find its end."""
        before = self.decided
        fault = b""
        try:
            self.parser.feed_data(piece)
        except httptools.HttpParserUpgrade:
            # The parser stops behind a request that asks for an upgrade. There is none
            # here: the next request follows.
            pass
        except httptools.HttpParserError:
            fault = heads.BAD_REQUEST
        if is_end:
            self.forget_head()
        if self.is_last:
            return
        if self.decided == before:
            # Also what the parser takes for another protocol, as the preface of HTTP/2.
            if fault or is_end:
                self.refuse(heads.BAD_REQUEST)
        elif fault or not is_end:
            # It was answered, and the parser means another end than we: no second answer.
            self.abort()

    def forget_head(self) -> None:
        """Forget what was read: a connection that idles holds nothing of it."""
        self.target = b""
        self.headers.clear()
        self.noted.clear()

    # --- the parser's callbacks -----------------------------------------------------

    def on_url(self, url: bytes) -> None:
        """Take a piece of the request target."""
        self.target += url

    def on_headers_complete(self) -> None:
        """Answer: here is all that a check has."""
        self.decided += 1
        self.answer_head()
