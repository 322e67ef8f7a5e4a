"""The replacement of all workers, one at a time (USR2, decision 0024)."""

from __future__ import annotations

import logging
import signal
from collections.abc import Callable, Collection
from typing import Final

from shared.log import event
from shared.serving.workers.worker_process import WorkerProcess

_LOG: Final = logging.getLogger(__name__)


class Replacement:
    """Replaces workers one by one, on request.

    The next worker is replaced when the one before has ended. If a new worker does not
    serve as well as the old ones, the old ones stay.

    Args:
        ask_to_end: requests a worker's end by this signal.
    """

    def __init__(
        self, ask_to_end: Callable[[WorkerProcess, signal.Signals], None]
    ) -> None:
        self._ask_to_end = ask_to_end
        #: workers still to be replaced; None when no replacement is under way
        self._old: list[WorkerProcess] | None = None
        self._is_wanted_again = False

    def request(self, workers: Collection[WorkerProcess]) -> None:
        """Begin, or begin again after the replacement that is under way."""
        if self._old is None:
            event(_LOG, logging.INFO, "supervisor.replacing")
            self._plan(workers)
        else:
            self._is_wanted_again = True

    def advance(self, workers: Collection[WorkerProcess]) -> None:
        """End the old worker of each replacement that serves; note the end of all."""
        if self._old is None:
            return
        # One that ended by itself was started anew meanwhile.
        self._old = [worker for worker in self._old if worker in workers]
        for worker in workers:
            if worker.replaces is None or not worker.is_ready:
                continue
            if worker.is_late:
                self._abandon(worker, workers)
                return
            old, worker.replaces = worker.replaces, None
            if old in self._old:
                self._old.remove(old)
            self._ask_to_end(old, signal.SIGUSR2)
        if not self._old and not _is_replacing(workers):
            event(_LOG, logging.INFO, "supervisor.replaced")
            self._end(workers)

    def next_old(self, workers: Collection[WorkerProcess]) -> WorkerProcess | None:
        """Return the worker whose replacement may start now."""
        return self._old[0] if self._old and not _is_replacing(workers) else None

    def _plan(self, workers: Collection[WorkerProcess]) -> None:
        self._old = [worker for worker in workers if worker.ends_by is None]
        self._is_wanted_again = False

    def _end(self, workers: Collection[WorkerProcess]) -> None:
        if self._is_wanted_again:
            self._plan(workers)
        else:
            self._old = None

    def _abandon(
        self, replacement: WorkerProcess, workers: Collection[WorkerProcess]
    ) -> None:
        """Keep the old workers: the new one serves, but not as well as they do."""
        replacement.log("supervisor.replacing_failed", level=logging.ERROR)
        replacement.replaces = None
        self._ask_to_end(replacement, signal.SIGUSR2)
        self._end(workers)


def _is_replacing(workers: Collection[WorkerProcess]) -> bool:
    """Return whether a replacement starts, or a replaced worker drains."""
    return any(
        worker.replaces is not None or worker.ends_by is not None for worker in workers
    )
