"""Keeps one gateway process at what is trusted, for as long as we are connected."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable
from typing import Final, Protocol

from shared.outgoing.failure_log import FailureLog
from verifier.native.content import Content, ContentSource
from verifier.native.in_force import InForce

_LOG: Final = logging.getLogger(__name__)
#: Seconds after a write that failed.
REST: Final = 0.5


class WriteError(Exception):
    """A gateway did not take what it was sent, or it is not proven that it has it.

    The message may be logged.
    """


class NotSentError(WriteError):
    """A gateway was sent nothing, because it would be of no use."""


class ConnectionEndedError(Exception):
    """The gateway process cannot be reached any more over this connection."""


class GatewayProcess(Protocol):
    """A gateway process that we are connected to.

    Attributes:
        name: names the process and this connection to it, and never another one.
        has_window: the last write sent it the window, too. Without it, it closes when
            the one of before is over.
        trouble: what operators must do before it gets a window; empty for nothing.
    """

    name: str
    has_window: bool
    trouble: str

    async def write(self, content: Content) -> None:
        """Write the content; return when all of the process has it.

        An open window must come into force nowhere before the entries. A closed one
        comes before all else: the process may have more entries than we, from a
        process before this one whose window is still open.

        Raises:
            NotSentError: nothing was sent.
            WriteError: it was not taken, or that is not proven.
            ConnectionEndedError: the process cannot be reached any more.
        """


async def _at_once() -> None:
    """Return: the process can be sent something as soon as we are connected."""


class Writer:
    """Writes each new content into one gateway process.

    Args:
        process: written into.
        source: of the contents.
        in_force: learns what is proven.
        sleep: waits that many seconds.
        ready: returns when the process can be sent something, or raises `WriteError`.
            Until then it has nothing of ours, and is not waited for when it is gone.

    Attributes:
        last_error: why the last write failed, or kept the gateway closed; else empty.
    """

    def __init__(
        self,
        process: GatewayProcess,
        source: ContentSource,
        in_force: InForce,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
        ready: Callable[[], Awaitable[None]] = _at_once,
    ) -> None:
        self._process = process
        self._source = source
        self._in_force = in_force
        self._sleep = sleep
        self._ready = ready
        self._failures = FailureLog(
            _LOG, "native.write_failed", time.monotonic, gateway=process.name
        )
        self.last_error = ""
        self._is_replaced = False

    def replaced(self) -> None:
        """Note that another process has taken its place: it closes as it should."""
        self.last_error, self._is_replaced = "", True
        self._in_force.not_failing(self._process.name)

    async def run(self) -> None:
        """Write until the connection ends; the process may live on after that.

        Raises:
            TooManyProcessesError: there are too many gateway processes.
        """
        name = self._process.name
        self._in_force.connected(name)
        try:
            while True:
                try:
                    await self._ready()
                    content = await self._source.take_whole()
                    # Before it is sent: from then on it may let requests pass.
                    self._in_force.sending(name, content.window.ends_at)
                    await self._process.write(content)
                except WriteError as error:
                    self.last_error = str(error)
                    was_sent = not isinstance(error, NotSentError)
                    self._in_force.write_failed(name, was_sent=was_sent)
                    if self._is_replaced and not was_sent:
                        self._in_force.not_failing(name)
                    self._failures.failed((str(error),), error=str(error))
                    await self._sleep(REST)
                else:
                    self.last_error = self._process.trouble
                    self._failures.worked()
                    self._in_force.proven(
                        name,
                        content.mark,
                        has_window=self._process.has_window,
                        is_failing=bool(self.last_error),
                    )
                    await self._source.wait_for_other(content)
        except ConnectionEndedError:
            return
        finally:
            self._in_force.disconnected(name)
