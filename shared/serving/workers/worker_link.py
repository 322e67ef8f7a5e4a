"""A worker's end of the link to its supervisor."""

from __future__ import annotations

import contextlib
import socket
from typing import Final

#: The worker serves.
READY: Final = b"R"
#: The worker serves, but something that it waited for at its start did not come in
#: time.
LATE: Final = b"L"
#: The worker's event loop runs.
BEAT: Final = b"."
#: Files have changed, and workers that start later should begin with the new content.
RENEW: Final = b"N"


class WorkerLink:
    """Reports to the supervisor, and shows its end.

    Args:
        end: this process's end of a socket pair, non-blocking.
    """

    def __init__(self, end: socket.socket) -> None:
        self._end = end

    def fileno(self) -> int:
        """Return the socket that is readable once the supervisor has ended.

        The supervisor sends nothing over it.
        """
        return self._end.fileno()

    def report(self, word: bytes) -> None:
        """Send `READY`, `LATE`, `BEAT` or `RENEW`."""
        # The supervisor may be late, with more reports than it needs, or gone.
        with contextlib.suppress(OSError):
            self._end.send(word)

    def close(self) -> None:
        """Close this end of the link."""
        with contextlib.suppress(OSError):
            self._end.close()
