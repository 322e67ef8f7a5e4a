"""A worker process, as the supervisor sees it."""

from __future__ import annotations

import contextlib
import logging
import os
import signal
import socket
from dataclasses import dataclass
from typing import Final

from shared.log import event

_LOG: Final = logging.getLogger(__name__)


@dataclass(eq=False, slots=True)
class WorkerProcess:
    """A forked worker. Times are monotonic seconds.

    Attributes:
        pid: of the process.
        slot: its place, 0 and up.
        link: the supervisor's end of the link.
        started_at: when it was forked.
        heard_at: when it last reported, or else its start.
        replaces: the worker that it replaces, until it serves.
        is_ready: it serves.
        is_late: it serves, but something that it waited for did not come in time.
        is_killed: it was sent KILL.
        ends_by: when it is killed; None while it should stay.
    """

    pid: int
    slot: int
    link: socket.socket
    started_at: float
    heard_at: float
    replaces: WorkerProcess | None = None
    is_ready: bool = False
    is_late: bool = False
    is_killed: bool = False
    ends_by: float | None = None

    def send(self, number: signal.Signals) -> None:
        """Send a signal; do nothing if the process has ended."""
        with contextlib.suppress(ProcessLookupError):
            os.kill(self.pid, number)

    def log(self, name: str, level: int = logging.INFO, **fields: object) -> None:
        """Log an event about this worker."""
        event(_LOG, level, name, worker_pid=self.pid, slot=self.slot, **fields)
