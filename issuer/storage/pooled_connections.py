"""The connections of a pool, including those in use.

SQLAlchemy's `dispose` closes the idle connections and replaces the pool. A connection
in use then returns to the old, unused pool and stays open until it is garbage
collected. Until then it counts against PostgreSQL's `max_connections`, in addition to
those of the new pool.
"""

from __future__ import annotations

from typing import Any

from sqlalchemy import event
from sqlalchemy.exc import DisconnectionError
from sqlalchemy.ext.asyncio import AsyncEngine
from sqlalchemy.pool import ConnectionPoolEntry

_GENERATION = "gatehouse_generation"


class PooledConnections:
    """Replaces or closes the connections of a pool without interrupting their use.

    Args:
        engine: the pool's engine, before its first connection.
    """

    def __init__(self, engine: AsyncEngine) -> None:
        self._engine = engine
        self._generation = 0
        self._is_closed = False
        event.listen(engine.sync_engine, "do_connect", self._note_generation)
        event.listen(engine.sync_engine, "checkout", self._check_generation)
        event.listen(engine.sync_engine, "checkin", self._close_late)

    def replace(self) -> None:
        """Mark every connection: it is closed and opened anew before its next use.

        The size of the pool does not change.
        """
        self._generation += 1

    async def close(self) -> None:
        """Close the idle connections now, and each one in use when it is returned."""
        self._is_closed = True
        await self._engine.dispose()

    def _note_generation(
        self, _dialect: Any, record: ConnectionPoolEntry, *_arguments: Any
    ) -> None:
        # Set before opening: if `replace` runs meanwhile, this may be the old server.
        record.info[_GENERATION] = self._generation

    def _check_generation(
        self, _connection: Any, record: ConnectionPoolEntry, _proxy: Any
    ) -> None:
        if record.info[_GENERATION] != self._generation:
            # The pool closes it and opens a new one.
            raise DisconnectionError

    def _close_late(self, _connection: Any, record: ConnectionPoolEntry) -> None:
        if self._is_closed:
            record.invalidate()
