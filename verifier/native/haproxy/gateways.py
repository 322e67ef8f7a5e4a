"""Every worker of one HAProxy, each kept at what is trusted."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
import traceback
from collections.abc import AsyncIterator, Iterable
from pathlib import Path
from typing import Final, NamedTuple

from shared.log import event
from shared.outgoing.failure_log import FailureLog
from verifier.native.content import ContentSource
from verifier.native.haproxy.directory import HaproxyDirectory, usable_keys
from verifier.native.haproxy.master import (
    MasterConnection,
    MasterError,
    Processes,
)
from verifier.native.haproxy.process import HaproxyProcess
from verifier.native.haproxy.token_rules import KEY_BITS
from verifier.native.in_force import InForce, TooManyProcessesError
from verifier.native.writer import Writer

_LOG: Final = logging.getLogger(__name__)
#: Workers that are written into at one time. A master takes ten connections: one for
#: each of them, ours, and some for its operators.
MAX_WORKERS: Final = 6
#: Seconds between two looks for workers. A reload is noticed at once.
LOOK_EVERY: Final = 1.0
#: Seconds between two attempts to connect, the first and the longest. A master that is
#: reloaded takes no connection for a fifth of a second.
_ATTEMPTS: Final = (0.01, 1.0)
#: Seconds between two reloads that we ask for without effect: the first pause, and the
#: longest. After a change, a reload is asked for at once.
_RELOADS: Final = (10.0, 600.0)
#: Seconds for which a reload waits for commands that must not come late.
_QUIET: Final = 1.0
#: The longest while HAProxy has other rules: it closes, so a reload ends nothing good.
_LONGEST_CLOSED: Final = 60.0


class _Followed(NamedTuple):
    """A worker that is followed.

    Attributes:
        master: process id of its master.
        pid: its process id.
        started: when it started, as the kernel says; None when it cannot be seen here.
        process: writes into it.
        task: of its writer.
    """

    master: int
    pid: int
    started: str | None
    process: HaproxyProcess
    task: asyncio.Task[None]

    @property
    def worker(self) -> tuple[int, int, str | None]:
        """What names the worker, however often it is followed."""
        return self.master, self.pid, self.started


class HaproxyGateways:
    """Writes what is trusted into every worker of one HAProxy, old ones too.

    Args:
        source: of what a worker is to have; its terms are those that HAProxy can check.
        in_force: learns what is proven.
        master: the path of the unix socket of the master (`haproxy -S`).
        directory: where HAProxy finds keys, maps and rules; its parent must exist.

    Attributes:
        writers: one for each worker, by its name.
        last_error: why there is none; empty while there is one.

    Raises:
        ValueError: HAProxy's configuration cannot name the directory.
    """

    def __init__(
        self,
        source: ContentSource,
        in_force: InForce,
        master: str,
        directory: Path,
    ) -> None:
        self.writers: dict[str, Writer] = {}
        self.last_error = "HAProxy was not reached yet"
        self._source = source
        self._in_force = in_force
        self._master = master
        self._directory = HaproxyDirectory(directory)
        self._followed: dict[int, _Followed] = {}
        #: not followed any more, and awaited: they have not answered everything
        self._left: list[_Followed] = []
        self._reload_pause = _RELOADS[0]
        self._reload_at = 0.0
        self._pause = _ATTEMPTS[0]
        self._answered_at = time.monotonic()
        self._failures = FailureLog(
            _LOG, "native.haproxy_failed", time.monotonic, socket=master
        )
        self._faults = FailureLog(
            _LOG, "native.internal_error", time.monotonic, socket=master
        )
        self._vain_reloads = FailureLog(
            _LOG, "native.haproxy_not_reloaded", time.monotonic, socket=master
        )
        self._failed_reloads = FailureLog(
            _LOG, "native.haproxy_reload_failed", time.monotonic, socket=master
        )

    def prepare(self) -> None:
        """Write the directory, so that HAProxy can start before us, or after us.

        Raises:
            OSError: it cannot be written.
        """
        content = self._source.take()
        self._directory.prepare(content.keys, content.terms)

    @contextlib.asynccontextmanager
    async def writing(self) -> AsyncIterator[None]:
        """Write while the context is open; workers keep what they have at its end.

        Raises:
            OSError: the directory cannot be written.
        """
        self.prepare()
        task = asyncio.create_task(self.run())
        try:
            yield
        finally:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)

    async def run(self) -> None:
        """Find the workers and write into them, until this is cancelled."""
        async with asyncio.TaskGroup() as tasks:
            while True:
                try:
                    connection = await MasterConnection.open(self._master)
                    await self._follow(connection, tasks)
                except (MasterError, OSError) as error:
                    self._failed(f"VERIFIER_HAPROXY_MASTER: {error}")
                    await self._end_gone()
                except Exception as error:
                    # A fault of ours. HAProxy would close for good if this ended.
                    self.last_error = _name_fault(error)
                    self._faults.failed((self.last_error,), error=self.last_error)
                await asyncio.sleep(self._pause)
                self._pause = min(1.5 * self._pause, _ATTEMPTS[1])

    def _failed(self, error: str) -> None:
        self.last_error = error
        # After a reload the master answers again within a fifth of a second.
        if time.monotonic() - self._answered_at > LOOK_EVERY:
            self._failures.failed((error,), error=error)

    async def _follow(
        self, connection: MasterConnection, tasks: asyncio.TaskGroup
    ) -> None:
        """Follow the workers until the master ends the connection.

        Raises:
            MasterError: it does not answer.
            OSError: the directory cannot be written.
        """
        try:
            while True:
                processes = await connection.processes()
                self.last_error = self._find_trouble(processes)
                self._failures.worked()
                self._answered_at = time.monotonic()
                self._note_reload(connection)
                await self._end_missing(processes)
                await self._end_gone()
                self._look_at_left(processes)
                is_seen = connection.peer == processes.master
                # The current ones come first: without news they stay closed.
                wanted = (*processes.current, *processes.old)[:MAX_WORKERS]
                for followed in tuple(self._followed.values()):
                    if followed.pid not in wanted:
                        await self._leave(followed)
                for pid in wanted:
                    self._start(processes.master, pid, tasks, is_seen=is_seen)
                    self._note_place(pid, is_current=pid in processes.current)
                if reason := self._reason_to_reload(processes.current):
                    event(_LOG, logging.INFO, "native.haproxy_reload", reason=reason)
                    await self._reload(connection)
                self._pause = _ATTEMPTS[0]
                if await connection.wait_for_end(LOOK_EVERY):
                    return
        finally:
            connection.close()

    # --- workers ---------------------------------------------------------------------

    def _start(
        self, master: int, pid: int, tasks: asyncio.TaskGroup, *, is_seen: bool
    ) -> None:
        """Write into a worker from now on, unless this is done already.

        Args:
            master: process id of its master.
            pid: its process id.
            tasks: runs the writer.
            is_seen: process ids of the master are those of this process.
        """
        if pid in self._followed:
            return
        process = HaproxyProcess(pid, self._master, self._directory)
        writer = Writer(process, self._source, self._in_force)
        self.writers[process.name] = writer
        event(_LOG, logging.INFO, "native.connected", gateway=process.name)
        task = tasks.create_task(self._write(process, writer))
        started = _start_time(pid) if is_seen else None
        self._followed[pid] = _Followed(master, pid, started, process, task)

    def _note_place(self, pid: int, *, is_current: bool) -> None:
        """Note whether a worker takes new connections, or drains."""
        process = self._followed[pid].process
        if process.is_current and not is_current and process.name in self.writers:
            self.writers[process.name].replaced()
        process.is_current = is_current

    async def _write(self, process: HaproxyProcess, writer: Writer) -> None:
        try:
            await writer.run()
        except TooManyProcessesError as error:
            self._failures.failed((str(error),), error=str(error))
        except Exception as error:
            # A fault of ours. The worker is followed anew at the next look.
            fault = _name_fault(error)
            self._faults.failed((fault,), error=fault)
        finally:
            process.close()
            del self.writers[process.name]
            event(_LOG, logging.INFO, "native.disconnected", gateway=process.name)

    async def _end_missing(self, processes: Processes) -> None:
        """Note the end of workers that their own master does not list any more."""
        there = {*processes.current, *processes.old}
        for followed in tuple(self._followed.values()):
            if followed.master != processes.master:
                # Another HAProxy has taken the socket: it knows no other's workers.
                if followed.started is None:
                    await self._leave(followed)
            elif followed.pid not in there:
                await self._end(followed)
            elif followed.task.done() and not followed.process.is_abandoned:
                await self._leave(followed)

    async def _end_gone(self) -> None:
        """Note the end of workers that the kernel does not have any more."""
        for followed in tuple(self._followed.values()):
            if _is_gone(followed):
                await self._end(followed)
        for followed in self._left:
            if _is_gone(followed):
                self._in_force.ended(followed.process.name)

    def _look_at_left(self, processes: Processes) -> None:
        """Note what is known of workers that are not followed any more."""
        there = {*processes.current, *processes.old}
        for followed in self._left:
            name, again = followed.process.name, self._followed.get(followed.pid)
            if followed.master != processes.master:
                # Workers end with their master. Where they cannot be seen, it is all
                # that can be known.
                if followed.started is None:
                    self._in_force.ends_with_window(name)
            elif followed.pid not in there:
                self._in_force.ended(name)
            elif (
                again is not None
                and not followed.process.is_abandoned
                and self._in_force.has_proof(again.process.name)
            ):
                self._in_force.followed_again(name, again.process.name)
        self._left = [
            f for f in self._left if self._in_force.awaits_answer(f.process.name)
        ]

    async def _end(self, followed: _Followed) -> None:
        """Note that a worker has ended for certain."""
        await self._leave(followed)
        self._in_force.ended(followed.process.name)

    async def _leave(self, followed: _Followed) -> None:
        """Write no more into a worker, which may live until its window is over."""
        del self._followed[followed.pid]
        followed.task.cancel()
        await asyncio.wait([followed.task])
        name = followed.process.name
        self._in_force.left(name)
        if self._in_force.awaits_answer(name):
            # Once for each worker: what is left again and again, as by a lasting fault
            # of ours, would fill the ledger, and be followed no more after that.
            for before in self._left:
                is_same = before.worker == followed.worker
                if is_same and not before.process.is_abandoned:
                    self._in_force.left_again(before.process.name, name)
        self._left.append(followed)

    # --- reloads ---------------------------------------------------------------------

    def _abandoned(self, current: Iterable[int]) -> list[int]:
        """Return the current workers that nothing is written into any more."""
        followed = [self._followed[pid] for pid in current if pid in self._followed]
        return [f.pid for f in followed if f.process.is_abandoned]

    def _find_trouble(self, processes: Processes) -> str:
        """Return why a worker that takes new connections is not written into."""
        abandoned = self._abandoned(processes.current)
        if not abandoned:
            return ""
        return (
            f"worker {', '.join(map(str, abandoned))}: a command of before may still "
            "be carried out, so it is closed until a reload replaces it"
        )

    def _reason_to_reload(self, current: tuple[int, ...]) -> str:
        """Return why HAProxy is to be reloaded now; empty when it is not.

        Raises:
            OSError: the directory cannot be written.
        """
        content = self._source.take()
        for key in content.keys:
            if key not in usable_keys([key]):
                error = f"key {key.kid}: HAProxy's rules read keys of {KEY_BITS} bits"
                self._failures.failed((error,), error=error)
        if self._directory.update(content.keys, content.terms):
            self._begin_reloads()
        followed = [self._followed[pid] for pid in current if pid in self._followed]
        marks = {f.process.mark for f in followed if f.process.mark is not None}
        is_closed = bool(self._abandoned(current))
        if marks == {self._directory.mark} and not is_closed:
            self._begin_reloads()
            self._vain_reloads.worked()
        if marks <= {self._directory.mark} and not is_closed:
            return ""
        reason = "it lacks a key"
        if not all(map(self._directory.has_present_rules, marks)):
            reason, is_closed = "it has other policies", True
        elif is_closed:
            reason = "a worker cannot be written into any more"
        return reason if self._is_reload_due(is_closed=is_closed) else ""

    async def _reload(self, connection: MasterConnection) -> None:
        """Ask for a reload, while no worker carries out what must not come late.

        A reload that fails ends the connections over which the answers would come.
        """
        quiet = []
        # The current ones first: a reload that fails goes on with these.
        workers = sorted(
            self._followed.values(), key=lambda f: f.process.is_current, reverse=True
        )
        async with contextlib.AsyncExitStack() as held:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(_QUIET):
                    for followed in workers:
                        await held.enter_async_context(followed.process.raising)
                        quiet.append(followed.process)
            try:
                await connection.ask("reload")
            finally:
                # The master ends their connections too. They must not send into one
                # whose end they have not read yet.
                for process in quiet:
                    process.close()

    def _note_reload(self, connection: MasterConnection) -> None:
        """Log whether the last reload failed, whether it was ours or not."""
        if connection.has_failed_reload:
            error = (
                "HAProxy could not read its configuration and goes on with the one of "
                "before, closed if that has other policies; its own log says why"
            )
            self._failed_reloads.failed((), error=error)
        else:
            self._failed_reloads.worked()

    def _begin_reloads(self) -> None:
        """Have the next reload asked for at once."""
        self._reload_pause, self._reload_at = _RELOADS[0], 0.0

    def _is_reload_due(self, *, is_closed: bool) -> bool:
        """Return whether the pause after the last reload without effect is over.

        Args:
            is_closed: HAProxy lets nothing pass; else it lacks a key alone.
        """
        now = time.monotonic()
        if now < self._reload_at:
            return False
        if self._reload_at:
            error = (
                "a reload was asked for, and HAProxy does not have the present "
                "gatehouse.cfg; its own log says why"
            )
            self._vain_reloads.failed((), error=error)
        longest = _LONGEST_CLOSED if is_closed else _RELOADS[1]
        self._reload_at = now + min(self._reload_pause, longest)
        self._reload_pause = min(2 * self._reload_pause, _RELOADS[1])
        return True


def _name_fault(error: Exception) -> str:
    """Return what an unexpected error was, and where."""
    frame = traceback.extract_tb(error.__traceback__)[-1]
    place = f"{Path(frame.filename).name}:{frame.lineno}"
    return f"internal error: {type(error).__name__} at {place}"


def _is_gone(followed: _Followed) -> bool:
    """Return whether the kernel does not have a worker any more."""
    return followed.started not in (None, _start_time(followed.pid))


def _start_time(pid: int) -> str | None:
    """Return when a process started, in the kernel's ticks; None if there is none."""
    try:
        text = Path(f"/proc/{pid}/stat").read_bytes()
    except OSError:
        return None
    # The name before it, in parentheses, may contain any bytes (proc(5)).
    fields = text.rpartition(b")")[2].decode("ascii").split()
    return None if fields[0] in {"Z", "X"} else fields[19]
