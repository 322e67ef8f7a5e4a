"""Word between replicas on PostgreSQL that there is something new: LISTEN and NOTIFY.

Only ever a wake-up. What is new is read from the tables, and who waits also looks every
100 ms: a word that is lost costs that much time and nothing else.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from contextlib import suppress
from typing import Any, Final

from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncSession, create_async_engine
from sqlalchemy.pool import NullPool

from issuer.db import Database
from shared import log

HEAD_CHANNEL: Final = "gatehouse_head"
FOLLOWERS_CHANNEL: Final = "gatehouse_followers"
#: Seconds between looks whether the connection still lives, and before a new one.
_PING_SECONDS: Final = 10.0
_RECONNECT_SECONDS: Final = 1.0
_PING_TIMEOUT: Final = 5.0
_logger = logging.getLogger(__name__)


async def notify_head(db: AsyncSession) -> None:
    """Tell every replica on PostgreSQL, at the commit, that the epoch is another."""
    await db.execute(text(f"SELECT pg_notify('{HEAD_CHANNEL}', '')"))


class WakeUps:
    """Listens on a connection of its own and passes the word on.

    Args:
        database: whose URL is listened on; on SQLite there is one process and nothing
            to hear.
        on_head: told a position of the feed that was committed; None: all is new.
        on_followers: told that a follower has acknowledged or gone.
    """

    def __init__(
        self,
        database: Database,
        on_head: Callable[[int | None], None],
        on_followers: Callable[[], None],
    ) -> None:
        self._database = database
        self._on_head = on_head
        self._on_followers = on_followers
        self._is_closed = asyncio.Event()
        self._lost = asyncio.Event()

    def close(self) -> None:
        """Stop listening."""
        self._is_closed.set()
        self._lost.set()

    async def listen(self) -> None:
        """Listen until `close`, again and again."""
        if self._database.is_sqlite:
            return
        while not self._is_closed.is_set():
            try:
                await self._listen_once()
            except Exception as error:
                # Whatever it was: nothing but speed is lost, and we try again.
                detail = type(error).__name__
                log.event(_logger, logging.WARNING, "wake_ups.lost", detail=detail)
            with suppress(TimeoutError):
                await asyncio.wait_for(self._is_closed.wait(), _RECONNECT_SECONDS)

    async def _listen_once(self) -> None:
        # Not of the pool: there it would be missing for as long as we listen.
        engine = create_async_engine(self._database.engine.url, poolclass=NullPool)
        async with engine.connect() as connection:
            raw_connection = await connection.get_raw_connection()
            listener: Any = raw_connection.driver_connection
            self._lost.clear()
            listener.add_termination_listener(lambda _connection: self._lost.set())
            await listener.add_listener(HEAD_CHANNEL, self._hear_head)
            await listener.add_listener(FOLLOWERS_CHANNEL, self._hear_followers)
            while not self._is_lost_or_closed():
                try:
                    await asyncio.wait_for(self._lost.wait(), _PING_SECONDS)
                except TimeoutError:
                    # A peer that vanished without a word is found out here.
                    await asyncio.wait_for(listener.execute("SELECT 1"), _PING_TIMEOUT)

    def _is_lost_or_closed(self) -> bool:
        return self._lost.is_set() or self._is_closed.is_set()

    def _hear_head(self, _: object, __: int, ___: str, payload: str) -> None:
        self._on_head(int(payload) if payload.isdigit() else None)

    def _hear_followers(self, _: object, __: int, ___: str, ____: str) -> None:
        self._on_followers()
