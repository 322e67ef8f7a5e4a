"""Resolves names on threads of their own, so that one that hangs holds up no other.

The event loop resolves all names on a few threads. One issuer whose name servers do not
answer would keep them, and our own could not be reached any more (R67).
"""

from __future__ import annotations

import asyncio
import socket
from functools import partial
from typing import Any

from shared.thread_switching import call_detached

#: What `getaddrinfo` is asked: host, port, family, type, protocol, flags.
_Query = tuple[Any, Any, int, int, int, int]
_Found = list[Any]


class Lookups:
    """The look-ups of names that are under way, one for each question."""

    def __init__(self) -> None:
        self._running: dict[_Query, asyncio.Task[_Found]] = {}

    async def getaddrinfo(
        self,
        host: bytes | str | None,
        port: bytes | str | int | None,
        *,
        family: int = 0,
        type: int = 0,
        proto: int = 0,
        flags: int = 0,
    ) -> _Found:
        """Return the addresses of a name, as the method of an event loop does.

        A second question of the same kind waits for the look-up under way.

        Raises:
            OSError: as `socket.getaddrinfo`.
        """
        query = (host, port, family, type, proto, flags)
        lookup = self._running.get(query)
        if lookup is None:
            look = call_detached(partial(socket.getaddrinfo, *query))
            lookup = self._running[query] = asyncio.create_task(look)
            lookup.add_done_callback(partial(self._end, query))
        return await asyncio.shield(lookup)

    def _end(self, query: _Query, lookup: asyncio.Task[_Found]) -> None:
        del self._running[query]
        if not lookup.cancelled():
            # The askers may have given up, and asyncio would log what they missed.
            lookup.exception()


def resolve_apart(loop: asyncio.AbstractEventLoop) -> None:
    """Let an event loop resolve names by `Lookups`, whichever library asks."""
    loop.getaddrinfo = Lookups().getaddrinfo  # type: ignore[method-assign]
