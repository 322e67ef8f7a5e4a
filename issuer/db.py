"""The database: one engine, read and write transactions, nothing about tables.

A write transaction on SQLite begins with BEGIN IMMEDIATE: it takes the one write lock
at once instead of failing half-way when a read transaction wants to become a writer.
On PostgreSQL it is READ COMMITTED, which the feed's counter row relies on (DESIGN.md,
section 4).

Operations use `async with database.write() as db:` and the block's end commits. What
must survive an error is committed first; the error is raised after the block (R42).
"""

from __future__ import annotations

import sqlite3
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from sqlalchemy import Connection, event, make_url
from sqlalchemy.exc import DBAPIError
from sqlalchemy.exc import TimeoutError as PoolTimeoutError
from sqlalchemy.ext.asyncio import (
    AsyncEngine,
    AsyncSession,
    async_sessionmaker,
    create_async_engine,
)

from issuer.errors import UnavailableError

_READ_ONLY = "gatehouse_read_only"
#: Seconds a writer waits for SQLite's one write lock.
_SQLITE_BUSY_TIMEOUT = 10


class Database:
    """Opens transactions on one engine.

    Args:
        url: `sqlite+aiosqlite:///path` or `postgresql+asyncpg://...`.
        pool_size: connections kept; on SQLite the readers' number.
        pool_timeout: seconds to wait for a free connection, then `UnavailableError`.
    """

    def __init__(
        self, url: str, *, pool_size: int = 10, pool_timeout: float = 2.0
    ) -> None:
        self.is_sqlite = make_url(url).get_backend_name() == "sqlite"
        self.engine = _create_engine(url, pool_size, pool_timeout)
        reading_engine = self.engine.execution_options(**{_READ_ONLY: True})
        self._writing = async_sessionmaker(self.engine, expire_on_commit=False)
        self._reading = async_sessionmaker(reading_engine, expire_on_commit=False)

    @asynccontextmanager
    async def write(self) -> AsyncIterator[AsyncSession]:
        """One read-write transaction; commits at the block's end, rolls back on error.

        Raises:
            UnavailableError: when the database is away or no connection came free.
        """
        async with _trouble_is_unavailable(), self._writing() as db, db.begin():
            yield db

    @asynccontextmanager
    async def read(self) -> AsyncIterator[AsyncSession]:
        """One transaction that only reads.

        Raises:
            UnavailableError: when the database is away or no connection came free.
        """
        async with _trouble_is_unavailable(), self._reading() as db, db.begin():
            yield db

    async def close(self) -> None:
        """Close every connection."""
        await self.engine.dispose()


@asynccontextmanager
async def _trouble_is_unavailable() -> AsyncIterator[None]:
    """Trouble of the database is 503, never 401 and never 500 (requirement R38).

    An `IntegrityError` or a programming error is ours, not the database's, and passes.
    """
    try:
        yield
    except PoolTimeoutError as error:
        raise UnavailableError(detail="no database connection came free") from error
    except (OSError, DBAPIError) as error:
        if _is_outage(error):
            raise UnavailableError(
                detail=f"database: {type(error).__name__}"
            ) from error
        raise


def _is_outage(error: OSError | DBAPIError) -> bool:
    if isinstance(error, OSError):
        return True
    if error.connection_invalidated:
        return True
    # SQLSTATE classes 08 connection, 53 resources, 57P admin shutdown, crash, starting
    # up, and 55P03 lock not available.
    state = str(getattr(error.orig, "sqlstate", None) or "")
    if state.startswith(("08", "53", "57P")) or state == "55P03":
        return True
    text = str(error.orig)
    return "database is locked" in text or "connection is closed" in text


def _create_engine(url: str, pool_size: int, pool_timeout: float) -> AsyncEngine:
    if make_url(url).get_backend_name() != "sqlite":
        return create_async_engine(
            url,
            pool_size=pool_size,
            max_overflow=0,
            pool_timeout=pool_timeout,
            pool_pre_ping=True,
            # An error's text would repeat what was bound: hashes, names (R35).
            hide_parameters=True,
            isolation_level="READ COMMITTED",
        )
    engine = create_async_engine(
        url,
        pool_size=pool_size,
        max_overflow=0,
        pool_timeout=pool_timeout,
        hide_parameters=True,
        connect_args={"timeout": _SQLITE_BUSY_TIMEOUT},
    )
    event.listen(engine.sync_engine, "connect", _prepare_sqlite)
    event.listen(engine.sync_engine, "begin", _begin_sqlite)
    return engine


def _prepare_sqlite(connection: Any, _record: Any) -> None:
    # sqlite3 would open transactions by itself, deferred; `_begin_sqlite` says BEGIN.
    connection.isolation_level = None
    cursor = connection.cursor()
    cursor.execute("PRAGMA journal_mode=WAL")
    # FULL: an acknowledged write survives a power cut, not only a killed process.
    cursor.execute("PRAGMA synchronous=FULL")
    cursor.execute("PRAGMA foreign_keys=ON")
    cursor.close()


def _begin_sqlite(connection: Connection) -> None:
    is_read_only = connection.get_execution_options().get(_READ_ONLY, False)
    connection.exec_driver_sql("BEGIN" if is_read_only else "BEGIN IMMEDIATE")


#: RETURNING, on which the feed's counter row stands, came with SQLite 3.35.
MINIMUM_SQLITE = (3, 35, 0)


def check_sqlite_version() -> None:
    """Refuse to start on a SQLite library too old for RETURNING.

    Raises:
        UnavailableError: naming the version found and the one needed.
    """
    if sqlite3.sqlite_version_info < MINIMUM_SQLITE:
        needed = ".".join(map(str, MINIMUM_SQLITE))
        raise UnavailableError(
            description=f"SQLite {sqlite3.sqlite_version} is too old: {needed} needed."
        )
