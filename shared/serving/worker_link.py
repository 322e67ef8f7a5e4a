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
    """Reports to the supervisor, and sees its end.

    Args:
        end: this process's end of a socket pair, non-blocking.

    Attributes:
        is_cut: the supervisor has gone: no one would start another worker.
    """

    def __init__(self, end: socket.socket) -> None:
        self._end = end
        self.is_cut = False

    def report(self, word: bytes) -> None:
        """Send `READY`, `LATE` or `BEAT`."""
        try:
            self._end.send(word)
        except BlockingIOError:
            # The supervisor is behind; it has more beats than it needs.
            pass
        except OSError:
            self.is_cut = True

    def close(self) -> None:
        """Close it."""
        with contextlib.suppress(OSError):
            self._end.close()
