"""A program's standard error as a pipe with a reader that can be paused."""

from __future__ import annotations

import array
import fcntl
import os
import selectors
import termios
import threading
from pathlib import Path
from types import TracebackType

from tests.support.processes import wait_until

#: The smallest pipe there is: it is full after a few lines.
_PIPE_BYTES = 4_096
#: Less than a line still fits.
_ALMOST = 600


class PausedLog:
    """Reads a program's writes to `path`, a FIFO, into a file; or lets it wait.

    Args:
        path: made here; have the program open it for writing.
        copy: the file with the bytes that were read.
    """

    def __init__(self, path: Path, copy: Path) -> None:
        os.mkfifo(path)
        self.path = path
        self._copy = copy
        self._pipe = os.open(path, os.O_RDONLY | os.O_NONBLOCK)
        # While one writer is open, a read at the end waits for the next one.
        self._writer = os.open(path, os.O_WRONLY)
        fcntl.fcntl(self._pipe, fcntl.F_SETPIPE_SZ, _PIPE_BYTES)
        self._may_read = threading.Event()
        self._may_read.set()
        self._is_over = False
        self._thread = threading.Thread(target=self._run)

    def __enter__(self) -> PausedLog:
        self._thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._is_over = True
        self._may_read.set()
        self._thread.join()
        os.close(self._writer)
        os.close(self._pipe)

    def block(self) -> None:
        """Stop reading; return when the pipe is full."""
        self._may_read.clear()
        wait_until(lambda: self._waiting() > _PIPE_BYTES - _ALMOST, what="a full pipe")

    def unblock(self) -> None:
        """Read on."""
        self._may_read.set()

    def _waiting(self) -> int:
        count = array.array("i", [0])
        fcntl.ioctl(self._pipe, termios.FIONREAD, count)
        return count[0]

    def _run(self) -> None:
        with (
            selectors.DefaultSelector() as selector,
            self._copy.open("ab", buffering=0) as copy,
        ):
            selector.register(self._pipe, selectors.EVENT_READ)
            while not self._is_over:
                self._may_read.wait()
                if selector.select(0.1) and self._may_read.is_set():
                    copy.write(os.read(self._pipe, _PIPE_BYTES))
