"""The transport that uvicorn writes to: one system call per answer, and a bounded end.

uvicorn writes head and body separately, and uvloop sends each at once. That is two
system calls, and the client wakes up twice. Of the 1,600 us of a refresh some 300 were
spent in them; with one system call it is 1,500.
"""

from __future__ import annotations

import asyncio
from typing import Any, Final, Protocol

#: Bytes up to which two pieces are copied into one. Longer ones are passed on as they
#: are, so that an answer that many peers do not read is in memory once.
_COPIED: Final = 16_384


class Owner(Protocol):
    """The connection."""

    def may_write(self) -> bool:
        """Return whether an answer may still be sent."""

    def finish(self) -> None:
        """End after the written answers."""

    def set_application_paused(self, *, is_paused: bool) -> None:
        """Record whether the application takes more of a body."""


class _NoOwner:
    """The owner of the transport once its connection has ended."""

    def may_write(self) -> bool:
        return False

    def finish(self) -> None:
        pass

    def set_application_paused(self, *, is_paused: bool) -> None:
        pass


class Writes:
    """Wraps the transport of one connection.

    Args:
        transport: takes the bytes.
        loop: sends the held bytes at the end of the turn, if no second write comes.
        owner: the connection, which decides how it ends.
    """

    def __init__(
        self,
        transport: asyncio.Transport,
        loop: asyncio.AbstractEventLoop,
        owner: Owner,
    ) -> None:
        self._transport = transport
        self._loop = loop
        self._owner = owner
        self._held = b""

    def get_extra_info(self, name: str, default: Any = None) -> Any:
        """Return the socket's property of this name; see `asyncio.BaseTransport`."""
        return self._transport.get_extra_info(name, default)

    def write(self, data: bytes) -> None:
        """Send the held bytes together with `data`; hold `data` if none are held."""
        if self._held:
            self._send(data)
        elif data and self._owner.may_write():
            self._held = data
            self._loop.call_soon(self._send)

    def flush(self) -> None:
        """Send the held bytes."""
        self._send()

    def close(self) -> None:
        """End the connection after the written answers."""
        self._owner.finish()

    def release(self) -> None:
        """Drop the connection, because an application may keep this object for long."""
        self._owner = _NoOwner()
        self._held = b""

    def is_closing(self) -> bool:
        """Return whether no further answer can be sent."""
        return not self._owner.may_write()

    def pause_reading(self) -> None:
        """Pause reading the body."""
        self._owner.set_application_paused(is_paused=True)

    def resume_reading(self) -> None:
        """Resume reading the body."""
        self._owner.set_application_paused(is_paused=False)

    def _send(self, more: bytes = b"") -> None:
        held, self._held = self._held, b""
        # If the connection is lost within this turn, the write would raise in the event
        # loop, where nothing catches it.
        if not held or not self._owner.may_write() or self._transport.is_closing():
            return
        if more and len(held) + len(more) > _COPIED:
            self._transport.writelines((held, more))
        else:
            self._transport.write(held + more)
