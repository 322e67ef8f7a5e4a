"""The connections of a pool, the ones at work included.

SQLAlchemy's `dispose` closes the idle ones and puts a new pool in the old one's place.
One at work then comes back to the old pool, which nothing uses any more, and stays open
until the garbage collector finds it. Until then it counts against PostgreSQL's
`max_connections`, beside those of the new pool.
"""

from __future__ import annotations

from typing import Any

from sqlalchemy import event
from sqlalchemy.exc import DisconnectionError
from sqlalchemy.ext.asyncio import AsyncEngine
from sqlalchemy.pool import ConnectionPoolEntry

_GENERATION = "gatehouse_generation"


class PooledConnections:
    """Gives up the connections of an engine's pool; none is cut off at work.

    Args:
        engine: whose pool it is, before its first connection.
    """

    def __init__(self, engine: AsyncEngine) -> None:
        self._engine = engine
        self._generation = 0
        self._is_closed = False
        event.listen(engine.sync_engine, "do_connect", self._note_generation)
        event.listen(engine.sync_engine, "checkout", self._check_generation)
        event.listen(engine.sync_engine, "checkin", self._close_late)

    def replace(self) -> None:
        """Have each one closed, and a new one opened, before it is used again.

        The pool stays as large as it is.
        """
        self._generation += 1

    async def close(self) -> None:
        """Close the idle ones now, and each that is at work once it is given back."""
        self._is_closed = True
        await self._engine.dispose()

    def _note_generation(
        self, _dialect: Any, record: ConnectionPoolEntry, *_arguments: Any
    ) -> None:
        # Before it is opened: it may lead to the old server, should `replace` come
        # meanwhile.
        record.info[_GENERATION] = self._generation

    def _check_generation(
        self, _connection: Any, record: ConnectionPoolEntry, _proxy: Any
    ) -> None:
        if record.info[_GENERATION] != self._generation:
            # The pool closes it and opens another.
            raise DisconnectionError

    def _close_late(self, _connection: Any, record: ConnectionPoolEntry) -> None:
        if self._is_closed:
            record.invalidate()
