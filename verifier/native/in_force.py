"""What is in force in each gateway process that may let requests pass.

A gateway process that cannot be reached may let requests pass until the window that it
was sent last is over (`window.py`). So it counts until then, with what was known to be
in force in it. The process before this one may have written into gateways that this one
does not know: in them, nothing counts as in force for the time of our own windows. For
the promise, its lease at the issuer counts (docs/revocation.md), which also covers a
predecessor with another staleness.
"""

from __future__ import annotations

import asyncio
import itertools
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from typing import Final, NamedTuple

#: Gateway processes that are known at one time, ended ones among them: two in a hot
#: restart, and those of earlier ones that still drain.
MAX_PROCESSES: Final = 64

#: Times of writes that are kept until they are taken.
_MAX_DELAYS: Final = 1_000
_NOWHERE: Final = ""
#: Names processes that were folded into one, and a number does.
_FOLDED: Final = "folded"


class Mark(NamedTuple):
    """A position of the feed in its epoch."""

    epoch: str
    position: int


class Progress(NamedTuple):
    """How far one gateway process is.

    Attributes:
        position: of the feed, up to which every entry is in force in it for certain.
        window_left: seconds for which it may let requests pass without more news.
    """

    position: int
    window_left: float


class TooManyProcessesError(Exception):
    """A further gateway process cannot be kept in mind."""


@dataclass(slots=True)
class _Process:
    """One gateway process.

    Attributes:
        in_force: what is proven to be in force in it.
        passes_until: boot-time seconds until which it may let requests pass.
        sent_until: the same, without the write that is under way.
        is_reached: we are connected to it.
        sent_at: boot-time seconds of the write that is not proven yet; None for none.
        is_failing: the last write failed.
        must_answer: it counts when its window is over, too.
    """

    in_force: Mark
    passes_until: float
    is_reached: bool
    sent_until: float = 0.0
    sent_at: float | None = None
    is_failing: bool = False
    must_answer: bool = False

    def note_window(self, *, was_sent: bool) -> None:
        """Note whether the write that has ended may have sent its window."""
        if was_sent:
            self.sent_until = self.passes_until
        else:
            self.passes_until = self.sent_until


class InForce:
    """Knows up to which position the entries are in force everywhere.

    Args:
        boottime: gives boot-time seconds.
        max_staleness: seconds for which a gateway may pass requests after its last
            news; what a predecessor like us wrote is over after that.
        must_answer: a gateway process that was stopped and goes on may let requests
            pass by the clock of before. So it counts until it has everything, or has
            ended, and not until its window is over.

    Attributes:
        written: writes that are proven, so far.
        failed: writes that failed, so far.
    """

    def __init__(
        self,
        boottime: Callable[[], float],
        max_staleness: float,
        *,
        must_answer: bool = False,
    ) -> None:
        self._boottime = boottime
        self._must_answer = must_answer
        self._reached = Mark(_NOWHERE, 0)
        self._changed = asyncio.Event()
        self._news = asyncio.Event()
        before_us = _Process(
            Mark(_NOWHERE, 0), boottime() + max_staleness, is_reached=False
        )
        self._processes: dict[str, _Process] = {_NOWHERE: before_us}
        self.written = 0
        self.failed = 0
        self._delays: deque[float] = deque(maxlen=_MAX_DELAYS)
        self._folded = 0

    # --- for the feed ----------------------------------------------------------------

    @property
    def mark(self) -> Mark:
        """The position up to which we have all entries."""
        return self._reached

    def reached(self, epoch: str, position: int) -> None:
        """Note that we have all entries up to this position."""
        self._reached = Mark(epoch, position)
        # Wake all that wait, and let the next ones wait anew.
        self._news.set()
        self._news = asyncio.Event()

    def position(self, epoch: str) -> int:
        """Return the position up to which all entries are in force everywhere."""
        self._forget_ended()
        marks = [process.in_force for process in self._passing()]
        if not marks:
            # No gateway lets any request pass.
            return self._reached.position if epoch == self._reached.epoch else 0
        return min(_position_in(epoch, mark) for mark in marks)

    async def wait(self, epoch: str, position: int, seconds: float) -> None:
        """Return when the entries up to the position are in force, or in `seconds`."""
        with suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                while self.position(epoch) < position:
                    self._changed.clear()
                    await self._changed.wait()

    # --- for those that write into gateways ------------------------------------------

    def connected(self, process: str) -> None:
        """Note that a gateway process is there; until it is sent something, it has
        nothing of ours.

        Args:
            process: names it and this connection to it, and never another one.

        Raises:
            TooManyProcessesError: there are too many that we are connected to.
        """
        self._forget_ended()
        if len(self._processes) >= MAX_PROCESSES:
            self._fold_unreached()
        if len(self._processes) >= MAX_PROCESSES:
            raise TooManyProcessesError(f"more than {MAX_PROCESSES} gateway processes")
        self._processes[process] = _Process(
            Mark(_NOWHERE, 0), 0.0, is_reached=True, must_answer=self._must_answer
        )

    def sending(self, process: str, passes_until: float) -> None:
        """Note, before it is sent, that a window may come into force in a process."""
        known = self._processes[process]
        known.passes_until = max(known.passes_until, passes_until)
        if known.sent_at is None:
            known.sent_at = self._boottime()

    def proven(
        self,
        process: str,
        mark: Mark,
        *,
        has_window: bool = True,
        is_failing: bool = False,
    ) -> None:
        """Note that every entry up to the mark is in force in all of a process.

        Args:
            process: its name.
            mark: how far the entries go.
            has_window: it was sent the window as well; else it has that of before.
            is_failing: operators must do something before it gets one.
        """
        known = self._processes[process]
        known.in_force, known.is_failing = mark, is_failing
        known.note_window(was_sent=has_window)
        self.written += 1
        if known.sent_at is not None:
            self._delays.append(self._boottime() - known.sent_at)
            known.sent_at = None
        self._changed.set()

    def write_failed(self, process: str, *, was_sent: bool = True) -> None:
        """Note that a write failed; it will be repeated.

        Args:
            process: its name.
            was_sent: something of it may have been sent.
        """
        known = self._processes[process]
        known.is_failing = True
        known.note_window(was_sent=was_sent)
        self.failed += 1

    def take_delays(self) -> list[float]:
        """Return the seconds of each write since the last call, first try to proof."""
        taken = list(self._delays)
        self._delays.clear()
        return taken

    def disconnected(self, process: str) -> None:
        """Note that a process cannot be reached: it lives until its window is over."""
        self._processes[process].is_reached = False
        self._changed.set()

    def left(self, process: str) -> None:
        """Note that a process is not followed any more, and may be alive.

        One that had answered everything is waited for until its window is over.
        """
        known = self._processes.get(process)
        if known is not None and known.sent_at is None and not known.is_failing:
            self.ends_with_window(process)

    def ends_with_window(self, process: str) -> None:
        """Wait for a process until its window is over, and for no answer of it."""
        if process in self._processes:
            self._processes[process].must_answer = False
            self._changed.set()

    def awaits_answer(self, process: str) -> bool:
        """Return whether a process counts when its window is over, too."""
        known = self._processes.get(process)
        return known is not None and known.must_answer

    def followed_again(self, before: str, now: str) -> None:
        """Take two names for one process: all that was sent to it is in force in it.

        A window that it was sent under the name of before may still be open.
        """
        past, known = self._processes.pop(before, None), self._processes[now]
        if past is not None:
            known.sent_until = max(known.sent_until, past.passes_until)
            known.passes_until = max(known.passes_until, past.passes_until)
        self._changed.set()

    def left_again(self, before: str, now: str) -> None:
        """Take two names for one process that was left both times, and is awaited.

        It is as far as under the name under which it is less far.
        """
        past, known = self._processes.get(before), self._processes[now]
        if past is not None:
            has_one_epoch = past.in_force.epoch == known.in_force.epoch
            known.in_force = (
                min(past.in_force, known.in_force)
                if has_one_epoch
                else Mark(_NOWHERE, 0)
            )
        self.followed_again(before, now)

    def not_failing(self, process: str) -> None:
        """Note that what is wrong with a process is as it should be."""
        if process in self._processes:
            self._processes[process].is_failing = False

    def has_proof(self, process: str) -> bool:
        """Return whether all that was sent to a process is in force in it."""
        known = self._processes.get(process)
        return (
            known is not None
            and known.in_force.epoch != _NOWHERE
            and known.sent_at is None
        )

    def progress(self, process: str) -> Progress:
        """Return how far a process is; nowhere when it was sent nothing."""
        known = self._processes.get(process)
        if known is None:
            return Progress(0, 0.0)
        position = _position_in(self._reached.epoch, known.in_force)
        left = round(known.passes_until - self._boottime(), 3)
        return Progress(position, max(0.0, left))

    def ended(self, process: str) -> None:
        """Note that a process lets nothing pass any more: it is known to have ended."""
        self._processes.pop(process, None)
        self._changed.set()

    async def wait_for_news(self, seconds: float) -> None:
        """Return when `reached` is called, or in `seconds`."""
        with suppress(TimeoutError):
            # Python 3.11's wait_for loses a cancellation that comes with the news.
            async with asyncio.timeout(seconds):
                await self._news.wait()

    @property
    def reached_processes(self) -> int:
        """The number of gateway processes that we are connected to."""
        return sum(process.is_reached for process in self._processes.values())

    @property
    def failing_processes(self) -> int:
        """The number of processes that we are connected to, and cannot write into or
        cannot keep open.
        """
        return sum(p.is_reached and p.is_failing for p in self._processes.values())

    @property
    def awaited_processes(self) -> int:
        """The number of processes that cannot be reached and may let requests pass."""
        return sum(not process.is_reached for process in self._passing())

    def _passing(self) -> list[_Process]:
        now = self._boottime()
        return [
            p for p in self._processes.values() if p.passes_until > now or p.must_answer
        ]

    def _fold_unreached(self) -> None:
        """Keep two processes that cannot be reached as one, which is as far as the one
        that is less far, and lets requests pass for as long as either.

        The two whose windows end closest together, of the newest: so one that stands
        for many ends little later than the first of them.
        """
        past = sorted(
            (process.passes_until, name)
            for name, process in self._processes.items()
            if not process.is_reached and not process.must_answer
        )
        if len(past) < 2:
            return
        # `min` finds the first; of the newest is the first from behind.
        pairs = list(itertools.pairwise(past))[::-1]
        (_, one), (until, other) = min(pairs, key=lambda p: p[1][0] - p[0][0])
        marks = [self._processes.pop(name).in_force for name in (one, other)]
        has_one_epoch = marks[0].epoch == marks[1].epoch
        self._folded += 1
        self._processes[f"{_FOLDED} {self._folded}"] = _Process(
            min(marks) if has_one_epoch else Mark(_NOWHERE, 0), until, is_reached=False
        )

    def _forget_ended(self) -> None:
        now = self._boottime()
        past = [
            name
            for name, process in self._processes.items()
            if not process.is_reached
            and not process.must_answer
            and process.passes_until <= now
        ]
        for name in past:
            del self._processes[name]


def _position_in(epoch: str, mark: Mark) -> int:
    """Return the position of a mark; the first one when it is of another epoch."""
    return mark.position if mark.epoch == epoch else 0
