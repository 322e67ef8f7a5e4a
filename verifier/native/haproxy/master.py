"""The command line interface of HAProxy's master, which reaches every worker.

A connection is in prompt mode: one command, its answer, and the prompt. The master ends
all connections when it is reloaded.
"""

from __future__ import annotations

import asyncio
import re
import socket
import struct
from typing import Final, NamedTuple, Self

#: Seconds for one answer. A stopped worker gives none.
ANSWER_TIME: Final = 2.0
#: Bytes of an answer.
MAX_ANSWER: Final = 262_144
#: Ends an answer. After a reload that failed, the prompt says so for ever.
_PROMPT: Final = re.compile(rb"master(\[ReloadFailed\])?> \Z")
_PROMPT_END: Final = b"> "
#: Precedes each line of a payload in prompt mode.
_CONTINUED: Final = "+ "
_NO_WORKER: Final = "Can't find the target PID"
_PROCESS: Final = re.compile(r"([0-9]+)\s+(master|worker)\s")
_CREDENTIALS: Final = struct.Struct("3i")


class MasterError(Exception):
    """The master, or a worker over it, does not answer; the message may be logged."""


class MasterGoneError(MasterError):
    """The master has ended the connection, or takes none."""


class WorkerGoneError(MasterError):
    """The master has no such worker any more."""


class Processes(NamedTuple):
    """The processes of one HAProxy.

    Attributes:
        master: process id of the master, which stays the same over reloads.
        current: process ids of the workers that accept connections.
        old: those of workers that were replaced and still have connections.
    """

    master: int
    current: tuple[int, ...]
    old: tuple[int, ...]


class MasterConnection:
    """One connection.

    Attributes:
        owes: an answer has not come yet; no command may be sent before it.
        has_failed_reload: the last prompt said that the last reload failed: HAProxy
            goes on with the workers of before.
    """

    def __init__(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        self._reader = reader
        self._writer = writer
        self.owes = False
        self.has_failed_reload = False
        self._received = bytearray()

    @classmethod
    async def open(cls, path: str) -> Self:
        """Connect to the unix socket of the master.

        Raises:
            MasterError: it takes no connection, or does not answer.
        """
        try:
            async with asyncio.timeout(ANSWER_TIME):
                streams = await asyncio.open_unix_connection(path, limit=MAX_ANSWER)
        except TimeoutError:
            raise MasterError(f"{path}: the master takes no connection") from None
        except OSError as error:
            raise MasterGoneError(f"{path}: {error.strerror or error}") from None
        connection = cls(*streams)
        try:
            await connection.ask("prompt")
        except BaseException:
            connection.close()
            raise
        return connection

    @property
    def is_ended(self) -> bool:
        """Whether the master has ended the connection."""
        return self._reader.at_eof() or self._writer.is_closing()

    @property
    def peer(self) -> int:
        """The process id of the one that listens, as this process sees it; 0 if it
        does not.
        """
        listener = self._writer.get_extra_info("socket")
        size = _CREDENTIALS.size
        found = listener.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, size)
        return int(_CREDENTIALS.unpack(found)[0])

    def close(self) -> None:
        """End the connection."""
        self._writer.close()

    async def ask(self, command: str, more_time: float = 0.0) -> str:
        """Send a command; return its answer, which is mostly empty for a success.

        Args:
            command: one line, or one with a payload that ends in an empty line.
            more_time: seconds to wait for the answer beyond `ANSWER_TIME`.

        Raises:
            MasterError: there is no answer yet, or there will be none.
        """
        self.owes = True
        self._writer.write(command.encode() + b"\n")
        return await self.answer(ANSWER_TIME + more_time)

    async def answer(self, seconds: float) -> str:
        """Return the answer to the last command.

        Args:
            seconds: to wait for it.

        Raises:
            MasterGoneError: the connection has ended.
            WorkerGoneError: there is no such worker.
            MasterError: it has not come in time; it may still come.
        """
        try:
            async with asyncio.timeout(seconds):
                await self._writer.drain()
                prompt = await self._read_to_prompt()
        except TimeoutError:
            raise MasterError(f"no answer within {seconds:g} s") from None
        except asyncio.IncompleteReadError as error:
            self._writer.close()
            received = self._received + error.partial
            if _NO_WORKER in received.decode(errors="replace"):
                raise WorkerGoneError("the master has no such worker") from None
            raise MasterGoneError("the master has ended the connection") from None
        except (asyncio.LimitOverrunError, OSError):
            self._writer.close()
            raise MasterGoneError("the connection to the master has ended") from None
        self.owes = False
        self.has_failed_reload = prompt[1] is not None
        shown = self._received.removesuffix(prompt[0]).decode(errors="replace")
        self._received = bytearray()
        while shown.startswith(_CONTINUED):
            shown = shown.removeprefix(_CONTINUED)
        return shown.strip()

    async def _read_to_prompt(self) -> re.Match[bytes]:
        """Return the prompt, once it has come, behind what was received since the last.

        Raises:
            asyncio.IncompleteReadError: the connection has ended before it.
            asyncio.LimitOverrunError: the answer is too long.
        """
        while True:
            piece = await self._reader.readuntil(_PROMPT_END)
            self._received += piece
            if found := _PROMPT.search(piece):
                return found
            if len(self._received) > MAX_ANSWER:
                raise asyncio.LimitOverrunError("too long", len(self._received))

    async def processes(self) -> Processes:
        """Return the processes that there are.

        Raises:
            MasterError: the master does not say.
        """
        current, _, old = (await self.ask("show proc")).partition("# old workers")
        found = {kind: pid for pid, kind in reversed(_PROCESS.findall(current))}
        if "master" not in found:
            raise MasterError("this is not the socket of a master; use haproxy -S")
        return Processes(int(found["master"]), _workers(current), _workers(old))

    async def wait_for_end(self, seconds: float) -> bool:
        """Return whether the master ends the connection within that time."""
        try:
            async with asyncio.timeout(seconds):
                await self._reader.read(1)
        except TimeoutError:
            return False
        except OSError:
            return True
        return True


def _workers(text: str) -> tuple[int, ...]:
    found = _PROCESS.findall(text)
    return tuple(int(pid) for pid, kind in found if kind == "worker")
