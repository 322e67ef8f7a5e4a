"""A worker's end of the link to its supervisor."""

from __future__ import annotations

import contextlib
import socket
from typing import Final

#: The worker serves.
READY: Final = b"R"
#: It serves, but what it waited for at its start did not come in time.
LATE: Final = b"L"
#: Its event loop turns.
BEAT: Final = b"."


class WorkerLink:
    """Reports to the supervisor, and shows its end.

    Args:
        end: this process's end of a socket pair, non-blocking.
    """

    def __init__(self, end: socket.socket) -> None:
        self._end = end

    def fileno(self) -> int:
        """Return what is readable once the supervisor has gone: it sends nothing."""
        return self._end.fileno()

    def report(self, word: bytes) -> None:
        """Send `READY`, `LATE` or `BEAT`."""
        # It may be behind, with more beats than it needs, or gone.
        with contextlib.suppress(OSError):
            self._end.send(word)

    def close(self) -> None:
        """Close it."""
        with contextlib.suppress(OSError):
            self._end.close()
