"""Signals of a program: held until they can be handled, and each handled once."""

from __future__ import annotations

import contextlib
import signal
import socket
from collections.abc import Sequence
from types import FrameType, TracebackType
from typing import Any, Final

from shared.commands.command_line import command_of

#: Signals that an operator sends to a program that should keep running. By default they
#: end it, and systemd counts an end by SIGHUP as clean and does not restart.
RELOADS: Final = (signal.SIGHUP, signal.SIGUSR2)


def hold_reloads() -> None:
    """Block `RELOADS` until there are handlers for them.

    Call it first: `systemctl reload` may follow a start at once.
    """
    signal.pthread_sigmask(signal.SIG_BLOCK, RELOADS)


def hold_reloads_when_serving(arguments: Sequence[str]) -> None:
    """Block `RELOADS` if these arguments make the program serve.

    Call it before the imports of the program, which take a second.
    """
    if command_of(arguments) in (None, "serve"):
        hold_reloads()


def release_reloads() -> None:
    """Unblock `RELOADS`, which have handlers now; pending ones are delivered."""
    signal.pthread_sigmask(signal.SIG_UNBLOCK, RELOADS)


class Signals:
    """Records which signals arrived while the context is open; for a selector.

    Many signals of one kind count once, and none of another kind is lost.

    Args:
        numbers: of the signals, in the order in which `take` returns them.
    """

    def __init__(self, numbers: Sequence[signal.Signals]) -> None:
        self._numbers = numbers
        self._came: set[int] = set()
        self._receiving, self._sending = socket.socketpair()
        self._receiving.setblocking(False)
        self._sending.setblocking(False)
        self._before: dict[signal.Signals, Any] = {}
        self._fd_before = -1

    def __enter__(self) -> Signals:
        self._before = {n: signal.signal(n, self._note) for n in self._numbers}
        # The bytes only wake the selector. With a full buffer they are dropped, and it
        # wakes anyway.
        self._fd_before = signal.set_wakeup_fd(
            self._sending.fileno(), warn_on_full_buffer=False
        )
        release_reloads()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        signal.set_wakeup_fd(self._fd_before)
        for number, handler in self._before.items():
            signal.signal(number, handler)
        self._receiving.close()
        self._sending.close()

    def _note(self, number: int, _frame: FrameType | None) -> None:
        self._came.add(number)

    def fileno(self) -> int:
        """Return the socket that is readable when a signal arrived."""
        return self._receiving.fileno()

    def take(self) -> list[signal.Signals]:
        """Return the signals that arrived since the last call."""
        with contextlib.suppress(BlockingIOError):
            self._receiving.recv(4_096)
        came, self._came = self._came, set()
        return [number for number in self._numbers if number in came]
