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

from sqlalchemy import select, text
from sqlalchemy.ext.asyncio import AsyncSession

from issuer.settings.database_url import parse_postgres_url
from issuer.storage.database_trouble import DatabasePlace, find_trouble
from issuer.storage.db import Database
from issuer.storage.postgres_connections import PostgresConnector, TlsFileError
from issuer.storage.tables.feed import FeedHead
from shared import log

HEAD_CHANNEL: Final = "gatehouse_head"
FOLLOWERS_CHANNEL: Final = "gatehouse_followers"
#: Seconds between looks whether the connection still lives, and before a new one.
_PING_SECONDS: Final = 10.0
_RECONNECT_SECONDS: Final = 1.0
_PING_TIMEOUT: Final = 5.0
_POOLED: Final = (
    "it leads through a pooler, which LISTEN does not pass: replicas look every 100 ms. "
    "ISSUER_LISTEN_URL takes a direct connection"
)
_LOG = logging.getLogger(__name__)


async def notify_head(db: AsyncSession) -> None:
    """Tell every replica on PostgreSQL, at the commit, that the epoch is another."""
    await db.execute(text(f"SELECT pg_notify('{HEAD_CHANNEL}', '')"))


class WakeUps:
    """Listens on a connection of its own and passes the word on.

    Behind a pooler nothing can be listened for: the server connection that heard LISTEN
    is another one's in the next moment. Then everybody who waits looks by themselves,
    unless `ISSUER_LISTEN_URL` leads past the pooler.

    Args:
        database: whose word it is; on SQLite there is one process and nothing to hear.
        listen_url: a direct connection to the same database; None: the database's own.
        on_head: told a position of the feed that was committed; None: all is new.
        on_followers: told that a follower has acknowledged or gone.
    """

    def __init__(
        self,
        database: Database,
        listen_url: str | None,
        on_head: Callable[[int | None], None],
        on_followers: Callable[[], None],
    ) -> None:
        self._connector = database.connector
        self._setting = "ISSUER_DATABASE_URL"
        if listen_url is not None:
            self._connector = PostgresConnector(parse_postgres_url(listen_url))
            self._setting = "ISSUER_LISTEN_URL"
        self._database = database
        self._on_head = on_head
        self._on_followers = on_followers
        self._is_closed = asyncio.Event()
        self._lost = asyncio.Event()
        self._warned: tuple[str, str] | None = None

    def close(self) -> None:
        """Stop listening."""
        self._is_closed.set()
        self._lost.set()

    async def listen(self) -> None:
        """Listen until `close`, again and again."""
        connector = self._connector
        if connector is None:
            return
        while not self._is_closed.is_set():
            try:
                await self._listen_once(connector)
            except Exception as error:
                # Whatever it was: nothing but speed is lost, and we try again.
                self._warn("wake_ups.lost", self._explain(error))
            if connector.is_pooled:
                self._warn("wake_ups.polling", _POOLED)
                return
            with suppress(TimeoutError):
                await asyncio.wait_for(self._is_closed.wait(), _RECONNECT_SECONDS)

    async def _listen_once(self, connector: PostgresConnector) -> None:
        # Not of the pool: there it would be missing for as long as we listen.
        listener = await connector.open()
        try:
            if connector.is_pooled:
                return
            await self._compare(listener)
            self._lost.clear()
            listener.add_termination_listener(lambda _connection: self._lost.set())
            await listener.add_listener(HEAD_CHANNEL, self._hear_head)
            await listener.add_listener(FOLLOWERS_CHANNEL, self._hear_followers)
            log.event(_LOG, logging.INFO, "wake_ups.listening", setting=self._setting)
            self._warned = None
            while not self._is_lost_or_closed():
                try:
                    await asyncio.wait_for(self._lost.wait(), _PING_SECONDS)
                except TimeoutError:
                    # A peer that vanished without a word is found out here.
                    await listener.execute("SELECT 1", timeout=_PING_TIMEOUT)
        finally:
            with suppress(Exception):
                await listener.close(timeout=_PING_TIMEOUT)

    async def _compare(self, listener: Any) -> None:
        """Warn when another database is listened to: there is never a word in it."""
        async with self._database.read() as db:
            ours = await db.scalar(select(FeedHead.epoch))
        if await listener.fetchval("SELECT epoch FROM feed_head") != ours:
            self._warn("wake_ups.elsewhere", "it leads to another database")

    def _explain(self, error: Exception) -> str:
        if self._connector is None or not isinstance(error, OSError | TlsFileError):
            return f"{type(error).__name__}: {error}"
        place = DatabasePlace(self._setting, self._connector.url.address)
        return getattr(find_trouble(error, place), "detail", "")

    def _warn(self, event: str, detail: str) -> None:
        """Log what is wrong, once until it is another thing."""
        if (event, detail) == self._warned:
            return
        self._warned = (event, detail)
        log.event(_LOG, logging.WARNING, event, setting=self._setting, detail=detail)

    def _is_lost_or_closed(self) -> bool:
        return self._lost.is_set() or self._is_closed.is_set()

    def _hear_head(self, _: object, __: int, ___: str, payload: str) -> None:
        self._on_head(int(payload) if payload.isdigit() else None)

    def _hear_followers(self, _: object, __: int, ___: str, ____: str) -> None:
        self._on_followers()
