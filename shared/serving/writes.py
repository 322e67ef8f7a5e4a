"""The transport that uvicorn writes to: one system call per answer, and a bounded end.

uvicorn writes head and body one after the other, and uvloop sends what it is given at
once: two system calls, and a client that wakes up twice. Of 1,600 us that a refresh
took, some 300 were spent in them; with one it is 1,500.
"""

from __future__ import annotations

import asyncio
from typing import Any, Final, Protocol

#: Bytes up to which two pieces are copied together; longer ones are handed over as they
#: are, so that an answer that many peers do not read is in memory once.
_COPIED: Final = 16_384


class Owner(Protocol):
    """The connection."""

    def may_write(self) -> bool:
        """Tell whether an answer may still leave."""

    def finish(self) -> None:
        """End behind what was written."""

    def set_application_paused(self, *, is_paused: bool) -> None:
        """Note whether the application takes more of a body."""


class _NoOwner:
    """Stands for a connection that has ended."""

    def may_write(self) -> bool:
        return False

    def finish(self) -> None:
        pass

    def set_application_paused(self, *, is_paused: bool) -> None:
        pass


class Writes:
    """Stands before the transport of one connection.

    Args:
        transport: what is written to.
        loop: calls back at the end of the turn, should no second write come.
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
        """Return what is known of the socket under this name."""
        return self._transport.get_extra_info(name, default)

    def write(self, data: bytes) -> None:
        """Send what was held with `data`; with nothing held, hold `data`."""
        if self._held:
            self._send(data)
        elif data and self._owner.may_write():
            self._held = data
            self._loop.call_soon(self._send)

    def flush(self) -> None:
        """Send what is held."""
        self._send()

    def close(self) -> None:
        """End the connection behind what was written."""
        self._owner.finish()

    def release(self) -> None:
        """Hold nothing of the connection: an application may keep this for long."""
        self._owner = _NoOwner()
        self._held = b""

    def is_closing(self) -> bool:
        """Tell whether no answer may leave any more."""
        return not self._owner.may_write()

    def pause_reading(self) -> None:
        """Take no more of a body."""
        self._owner.set_application_paused(is_paused=True)

    def resume_reading(self) -> None:
        """Take more."""
        self._owner.set_application_paused(is_paused=False)

    def _send(self, more: bytes = b"") -> None:
        held, self._held = self._held, b""
        # Lost within this turn, it would raise in the loop, where nothing catches it.
        if not held or not self._owner.may_write() or self._transport.is_closing():
            return
        if more and len(held) + len(more) > _COPIED:
            self._transport.writelines((held, more))
        else:
            self._transport.write(held + more)
