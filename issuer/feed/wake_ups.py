"""Notifications between replicas on PostgreSQL: LISTEN and NOTIFY.

They are only wake-ups. The news are read from the tables, and waiters also check every
100 ms: a lost notification costs at most that time.
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
#: Seconds between checks of the connection, and before a new one.
_PING_SECONDS: Final = 10.0
_RECONNECT_SECONDS: Final = 1.0
_PING_TIMEOUT: Final = 5.0
_POOLED: Final = (
    "it leads through a pooler, which LISTEN does not pass: replicas look every 100 ms. "
    "ISSUER_LISTEN_URL takes a direct connection"
)
_LOG = logging.getLogger(__name__)


async def notify_head(db: AsyncSession) -> None:
    """Notify every replica on PostgreSQL, at the commit, of a new epoch."""
    await db.execute(text(f"SELECT pg_notify('{HEAD_CHANNEL}', '')"))


class WakeUps:
    """Listens on its own connection and passes notifications on.

    LISTEN does not work behind a pooler: the server connection serves another client in
    the next transaction. Waiters then rely on their checks, unless `ISSUER_LISTEN_URL`
    bypasses the pooler.

    Args:
        database: sends the notifications; SQLite has one process and none.
        listen_url: a direct connection to the same database; None: the database's own.
        on_head: called with a committed position of the feed; None for a new epoch.
        on_followers: called when a follower has acknowledged or left.
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
        """Listen until `close`; reconnect after errors."""
        connector = self._connector
        if connector is None:
            return
        while not self._is_closed.is_set():
            try:
                await self._listen_once(connector)
            except Exception as error:
                # Any error only costs speed: try again.
                self._warn("wake_ups.lost", self._explain(error))
            if connector.is_pooled:
                self._warn("wake_ups.polling", _POOLED)
                return
            with suppress(TimeoutError):
                # Not `wait_for`, as in `issuer/foundation.py`.
                async with asyncio.timeout(_RECONNECT_SECONDS):
                    await self._is_closed.wait()

    async def _listen_once(self, connector: PostgresConnector) -> None:
        # Not from the pool: it would be one connection short.
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
                    async with asyncio.timeout(_PING_SECONDS):
                        await self._lost.wait()
                except TimeoutError:
                    # This detects a peer that has vanished.
                    await listener.execute("SELECT 1", timeout=_PING_TIMEOUT)
        finally:
            with suppress(Exception):
                await listener.close(timeout=_PING_TIMEOUT)

    async def _compare(self, listener: Any) -> None:
        """Warn when the listener is on another database: it gets no notifications."""
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
        """Log a problem once, until it changes."""
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
