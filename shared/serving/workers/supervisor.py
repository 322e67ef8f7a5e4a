"""Keeps worker processes running: start, replace, stop (decision 0024, R48).

The supervisor opens nothing, writes no file and serves no requests. Its workers inherit
the listening sockets, which stay open while workers come and go. Each worker has a
link, a socket pair, over which it reports that it serves and, once a second, that its
event loop runs. A worker sees by its end of the link when the supervisor has ended.

Signals:
    TERM, INT  every worker drains; those that take too long are killed
    HUP        every worker rereads its files; none is replaced
    USR2       workers are replaced one by one; if a replacement does not serve,
               the old worker stays
"""

from __future__ import annotations

import contextlib
import logging
import os
import selectors
import signal
import socket
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Final

from shared.log import event
from shared.serving.signals import Signals
from shared.serving.workers.occupancy import Occupancy
from shared.serving.workers.replacement import Replacement
from shared.serving.workers.worker_link import LATE, READY, RENEW, WorkerLink
from shared.serving.workers.worker_process import WorkerProcess

_LOG: Final = logging.getLogger(__name__)
_SIGNALS: Final = (
    signal.SIGTERM,
    signal.SIGINT,
    signal.SIGHUP,
    signal.SIGUSR2,
    signal.SIGCHLD,
)
#: Bytes of one read of a link; more than an hour of reports.
_READ_BYTES: Final = 4_096
#: Workers beside the wanted number: a replacement, and the one that it replaces.
_SPARE: Final = 2


@dataclass(frozen=True, slots=True)
class Patience:
    """How long the supervisor waits, in seconds.

    Attributes:
        start: for a worker to serve.
        beat: for the next report of a worker's event loop; without one it hangs.
        stop: for a worker that drains.
        first_pause: before the restart of a worker that failed at once; doubled with
            each failure.
        longest_pause: the upper bound of that pause.
        steady: a worker that lived this long did not fail at once.
        idle: between two checks when nothing happens.
    """

    start: float = 120.0
    beat: float = 30.0
    stop: float = 30.0
    first_pause: float = 0.5
    longest_pause: float = 30.0
    steady: float = 5.0
    idle: float = 0.5


@dataclass(frozen=True, slots=True)
class Slot:
    """The things that a worker gets at its start.

    Attributes:
        index: its place, 0 and up; no living worker has the same.
        link: its end of the link to the supervisor.
        occupancy: connections of every worker, and whether all stop.
    """

    index: int
    link: WorkerLink
    occupancy: Occupancy


class Supervisor:
    """Keeps a number of workers.

    Args:
        run_worker: runs in each forked process until the worker has drained.
        workers: how many.
        reload: rereads what later workers inherit, on HUP and when a worker asks; its
            errors are logged.
        listeners: the supervisor's listening sockets. It closes them when a stop
            begins, so that the port closes when the workers close theirs.
        on_end: called with the slot of a worker that has ended.
        patience: how long it waits.
        monotonic: gives monotonic seconds.

    Attributes:
        occupancy: connections of every worker.
        slots: how many places there are; workers have `0..slots-1`.
    """

    def __init__(
        self,
        run_worker: Callable[[Slot], None],
        workers: int,
        *,
        reload: Callable[[], None] = lambda: None,
        listeners: Sequence[socket.socket] = (),
        on_end: Callable[[int], None] = lambda _slot: None,
        patience: Patience = Patience(),
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self._run_worker = run_worker
        self._wanted = workers
        self._reload = reload
        self._listeners = listeners
        self._on_end = on_end
        self._patience = patience
        self._monotonic = monotonic
        self.slots = slots_for(workers)
        self.occupancy = Occupancy(self.slots)
        self._workers: dict[int, WorkerProcess] = {}
        self._selector = selectors.DefaultSelector()
        self._looked_at = monotonic()
        self._replacement = Replacement(self._ask_to_end)
        self._failures = 0
        self._paused_until = 0.0
        self._has_served = False
        self._is_stopping = False
        self._status = 0

    def run(self) -> int:
        """Keep the workers until a stop; return the exit status.

        The status is that of a worker that ended before any worker served: then the
        start has failed, and the program's exit status shows it.
        """
        with Signals(_SIGNALS) as signals, self._selector:
            self._selector.register(signals, selectors.EVENT_READ)
            while True:
                self._guard(self._reap)
                self._grant_lost_time()
                self._guard(self._end_overdue)
                if self._is_stopping and not self._workers:
                    return self._status
                if not self._is_stopping:
                    self._guard(partial(self._replacement.advance, self._living))
                    self._guard(self._fill)
                self._listen(signals)

    def _guard(self, step: Callable[[], None]) -> None:
        """Do a step; a fault in it is logged, and the others go on (R48)."""
        try:
            step()
        except Exception:
            _LOG.exception("supervisor.fault")
            # A fault that repeats must not fill a processor or the log.
            time.sleep(self._patience.first_pause)

    # --- what arrives ---------------------------------------------------------------

    def _listen(self, signals: Signals) -> None:
        for key, _ in self._selector.select(self._patience.idle):
            if key.fileobj is signals:
                for number in signals.take():
                    self._guard(partial(self._obey, number))
            else:
                self._guard(partial(self._hear, key.data))

    def _hear(self, worker: WorkerProcess) -> None:
        try:
            heard = worker.link.recv(_READ_BYTES)
        except BlockingIOError:
            return
        except OSError:
            heard = b""
        if not heard:
            # It ends; `_reap` will see how.
            self._forget_link(worker)
            return
        worker.heard_at = self._monotonic()
        if READY in heard or LATE in heard:
            worker.is_ready = True
            worker.is_late = READY not in heard
            self._has_served = True
            worker.log("worker.serving", is_late=worker.is_late)
        if RENEW in heard:
            self._guard(self._reload)

    def _obey(self, number: int) -> None:
        if number in (signal.SIGTERM, signal.SIGINT):
            self._stop(0)
        elif number == signal.SIGHUP and not self._is_stopping:
            event(_LOG, logging.INFO, "supervisor.reload")
            self._guard(self._reload)
            for worker in self._workers.values():
                worker.send(signal.SIGHUP)
        elif number == signal.SIGUSR2 and not self._is_stopping:
            self._replacement.request(self._living)

    def _stop(self, status: int) -> None:
        if self._is_stopping:
            return
        event(_LOG, logging.INFO, "supervisor.stopping")
        self._is_stopping = True
        self._status = status
        self.occupancy.note_stop()
        for listener in self._listeners:
            listener.close()
        for worker in self._workers.values():
            self._ask_to_end(worker, signal.SIGTERM)

    def _ask_to_end(self, worker: WorkerProcess, number: signal.Signals) -> None:
        if worker.ends_by is None:
            worker.ends_by = self._monotonic() + self._patience.stop
        worker.send(number)

    @property
    def _living(self) -> list[WorkerProcess]:
        return list(self._workers.values())

    # --- workers --------------------------------------------------------------------

    def _reap(self) -> None:
        while True:
            try:
                pid, code = os.waitpid(-1, os.WNOHANG)
            except ChildProcessError:
                return
            if not pid:
                return
            worker = self._workers.pop(pid, None)
            if worker is not None:
                self._note_end(worker, os.waitstatus_to_exitcode(code))

    def _note_end(self, worker: WorkerProcess, status: int) -> None:
        self._forget_link(worker)
        worker.link.close()
        for other in self._workers.values():
            if other.replaces is worker:
                # It takes the place of one that ended by itself.
                other.replaces = None
        self.occupancy.clear(worker.slot)
        self._on_end(worker.slot)
        worker.log("worker.ended", status=status)
        if worker.ends_by is not None:
            return
        if not self._has_served:
            # No worker of this start ever served: another try would hide the reason.
            self._stop(status if status > 0 else 1)
            return
        has_failed = (
            not worker.is_ready
            or self._monotonic() - worker.started_at < self._patience.steady
        )
        self._failures = self._failures + 1 if has_failed else 0
        self._pause()

    def _forget_link(self, worker: WorkerProcess) -> None:
        """Stop reading its link; the next link may get the same descriptor."""
        with contextlib.suppress(KeyError):
            self._selector.unregister(worker.link)

    def _pause(self) -> None:
        """Wait before the next start, the longer the more starts have failed."""
        if self._failures:
            patience = self._patience
            doubled = patience.first_pause * 2 ** min(self._failures - 1, 16)
            pause = min(doubled, patience.longest_pause)
            self._paused_until = self._monotonic() + pause

    def _grant_lost_time(self) -> None:
        """Add the time in which this process did not run to every worker's time.

        After a stop and a continuation, or a hanging file system, the workers' reports
        are there but unread. Before, all workers were killed then.
        """
        now = self._monotonic()
        lost = now - self._looked_at - self._patience.idle
        self._looked_at = now
        if lost <= 0:
            return
        for worker in self._workers.values():
            worker.heard_at += lost
            if worker.ends_by is not None:
                worker.ends_by += lost

    def _end_overdue(self) -> None:
        now, patience = self._monotonic(), self._patience
        for worker in self._workers.values():
            if worker.ends_by is not None:
                is_overdue = now > worker.ends_by
            else:
                granted = patience.beat if worker.is_ready else patience.start
                is_overdue = now > worker.heard_at + granted
            if is_overdue:
                worker.send(signal.SIGKILL)
                if not worker.is_killed:
                    # One that waits for a disk may take long to end.
                    worker.is_killed = True
                    worker.log("worker.killed", level=logging.ERROR)

    def _fill(self) -> None:
        """Start the workers that are missing, and a replacement where one is due."""
        staying = [
            worker
            for worker in self._workers.values()
            if worker.ends_by is None and worker.replaces is None
        ]
        for _ in range(self._wanted - len(staying)):
            if not self._start(None):
                return
        old = self._replacement.next_old(self._living)
        if old is not None:
            self._start(old)

    def _start(self, replaces: WorkerProcess | None) -> bool:
        """Fork a worker; return whether there is one."""
        now = self._monotonic()
        if now < self._paused_until:
            return False
        taken = {worker.slot for worker in self._workers.values()}
        slot = next((s for s in range(self.slots) if s not in taken), None)
        if slot is None:
            return False
        try:
            ours, theirs = socket.socketpair()
        except OSError as error:
            self._note_failed_start(error)
            return False
        ours.setblocking(False)
        theirs.setblocking(False)
        before = signal.pthread_sigmask(signal.SIG_BLOCK, _SIGNALS)
        try:
            pid = os.fork()
            if pid == 0:
                self._become_worker(slot, ours, theirs, before)
        except OSError as error:
            ours.close()
            self._note_failed_start(error)
            return False
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, before)
            theirs.close()
        worker = WorkerProcess(pid, slot, ours, now, now, replaces)
        self._workers[pid] = worker
        self._selector.register(ours, selectors.EVENT_READ, worker)
        worker.log("worker.started")
        return True

    def _note_failed_start(self, error: OSError) -> None:
        event(_LOG, logging.ERROR, "worker.not_started", error=str(error))
        self._failures += 1
        self._pause()

    def _become_worker(
        self,
        slot: int,
        ours: socket.socket,
        theirs: socket.socket,
        mask: Iterable[int],
    ) -> None:
        """Run the worker in the forked process; it never returns from here."""
        status = 1
        try:
            signal.set_wakeup_fd(-1)
            for number in _SIGNALS:
                signal.signal(number, signal.SIG_DFL)
            # A copy of a link kept here would hide the supervisor's end from a sibling.
            self._selector.close()
            ours.close()
            for worker in self._workers.values():
                worker.link.close()
            # A reload waits until the worker obeys signals; it would end it here.
            signal.pthread_sigmask(signal.SIG_SETMASK, {*mask, signal.SIGHUP})
            self._run_worker(Slot(slot, WorkerLink(theirs), self.occupancy))
            status = 0
        except SystemExit as stop:
            status = stop.code if isinstance(stop.code, int) else 1
        except BaseException:
            _LOG.exception("worker.failed")
        finally:
            # Cleanup further up the stack belongs to the supervisor.
            logging.shutdown()
            os._exit(status)


def slots_for(workers: int) -> int:
    """Return the number of places for these workers, replacements included."""
    return workers + _SPARE
