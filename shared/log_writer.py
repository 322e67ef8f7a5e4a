"""Writes log lines without ever blocking the thread that logs (R47).

A pipe that is full and not read blocks `write`. Before, one blocked line stalled every
check. Lines therefore wait in a bounded queue, and a thread writes them. Lines that
find the queue full are dropped and counted, and the next line that can be written has
their number.
"""

from __future__ import annotations

import logging
import os
import select
import threading
import time
from collections import deque
from collections.abc import Callable
from typing import Final

#: Bytes of lines that may wait. A healthy pipe takes them within milliseconds.
MAX_WAITING_BYTES: Final = 1_048_576
#: Seconds that `flush`, and so the end of the process, waits for a pipe that is full.
FLUSH_SECONDS: Final = 2.0
#: Bytes of one `write`. A pipe takes at most 4,096 bytes as a whole (PIPE_BUF), so
#: lines up to there are never mixed with those of another process.
_CHUNK_BYTES: Final = 4_096
#: Seconds before a descriptor that failed is tried again, for example on a full disk.
_RETRY_SECONDS: Final = 1.0

#: Returns the line that reports this many dropped lines, without its newline.
DescribeDropped = Callable[[int], str]


class LineWriter(logging.Handler):
    """A handler that queues formatted lines for a writer thread.

    Lines are formatted by the thread that logs, because the formatter reads its context
    variables. The process ends without waiting longer than `FLUSH_SECONDS`.

    Args:
        descriptor: the file descriptor that lines are written to.
        describe_dropped: makes the line about lines that were dropped.
        max_waiting_bytes: lines beyond it are dropped.
        flush_seconds: how long `flush` waits at most.

    Attributes:
        dropped: lines of this process that were dropped since it started.
    """

    def __init__(
        self,
        descriptor: int,
        describe_dropped: DescribeDropped,
        *,
        max_waiting_bytes: int = MAX_WAITING_BYTES,
        flush_seconds: float = FLUSH_SECONDS,
    ) -> None:
        super().__init__()
        self.dropped = 0
        self._descriptor = descriptor
        self._describe_dropped = describe_dropped
        self._max_waiting_bytes = max_waiting_bytes
        self._flush_seconds = flush_seconds
        self._reported = 0
        self._start()
        # Only the forking thread exists in a child, so a worker needs its own
        # writer thread. The parent writes the lines that wait here.
        os.register_at_fork(after_in_child=self._restart)

    def _start(self) -> None:
        self._lines: deque[bytes] = deque()
        self._waiting_bytes = 0
        self._changed = threading.Condition()
        # A daemon: a blocked `write` must not keep the process from ending.
        threading.Thread(target=self._write_lines, name="log", daemon=True).start()

    def _restart(self) -> None:
        self.dropped = self._reported = 0
        self._start()

    def emit(self, record: logging.LogRecord) -> None:
        """Queue the record's line, or count it as dropped."""
        try:
            line: bytes | None = self.format(record).encode()
        except Exception:
            # A faulty record loses only its own line. The base class would print a
            # traceback here, to a pipe that may be full.
            line = None
        with self._changed:
            if (
                line is None
                or self._waiting_bytes + len(line) > self._max_waiting_bytes
            ):
                self.dropped += 1
                return
            self._waiting_bytes += len(line)
            self._lines.append(line)
            self._changed.notify_all()

    def flush(self) -> None:
        """Wait until all lines are written, but no longer than `flush_seconds`."""
        end = time.monotonic() + self._flush_seconds
        with self._changed:
            while self._waiting_bytes:
                left = end - time.monotonic()
                if left <= 0:
                    return
                self._changed.wait(left)

    def _write_lines(self) -> None:
        while True:
            lines, missing = self._take_lines()
            report = [self._describe_dropped(missing).encode()] if missing else []
            try:
                self._write(b"".join(line + b"\n" for line in (*report, *lines)))
            except OSError:
                # For example a full disk. Only the counter can report it.
                with self._changed:
                    self.dropped += len(lines)
                    self._reported -= missing
                time.sleep(_RETRY_SECONDS)
            with self._changed:
                self._waiting_bytes -= sum(map(len, lines))
                self._changed.notify_all()

    def _take_lines(self) -> tuple[list[bytes], int]:
        """Wait for lines; return some, and the number of lines dropped before them."""
        with self._changed:
            while not self._lines:
                self._changed.wait()
            lines = [self._lines.popleft()]
            size = len(lines[0])
            while self._lines and size + len(self._lines[0]) < _CHUNK_BYTES:
                lines.append(self._lines.popleft())
                size += len(lines[-1]) + 1
            missing = self.dropped - self._reported
            self._reported = self.dropped
            return lines, missing

    def _write(self, chunk: bytes) -> None:
        rest = memoryview(chunk)
        while rest:
            try:
                written = os.write(self._descriptor, rest)
            except BlockingIOError:
                # Another program made the shared descriptor non-blocking.
                select.select([], [self._descriptor], [])
                continue
            rest = rest[written:]
