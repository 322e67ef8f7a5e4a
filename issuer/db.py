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
import time
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from typing import Any, NamedTuple

from sqlalchemy import Connection, Executable, Row, event, make_url
from sqlalchemy.engine import ExceptionContext
from sqlalchemy.exc import DBAPIError, DisconnectionError
from sqlalchemy.exc import TimeoutError as PoolTimeoutError
from sqlalchemy.ext.asyncio import (
    AsyncConnection,
    AsyncEngine,
    AsyncSession,
    async_sessionmaker,
    create_async_engine,
)
from sqlalchemy.pool import QueuePool
from sqlalchemy.util import greenlet_spawn

from issuer.database_breaker import DatabaseBreaker
from issuer.errors import DatabaseAwayError, UnavailableError

_READ_ONLY = "gatehouse_read_only"
#: Seconds a writer waits for SQLite's one write lock.
_SQLITE_BUSY_TIMEOUT = 10
#: Seconds to wait until PostgreSQL has taken a connection.
_CONNECT_TIMEOUT = 5
#: Seconds in the pool after which a PostgreSQL connection is asked whether it lives.
_PING_AFTER = 0.5
_USED_AT = "gatehouse_used_at"


class PoolMeasure(NamedTuple):
    """How the pool is.

    Attributes:
        in_use: connections at work.
        idle: connections that wait for work.
        is_away: whether the database counts as away.
    """

    in_use: int
    idle: int
    is_away: bool


class Database:
    """Opens transactions on one engine.

    Args:
        url: `sqlite+aiosqlite:///path` or `postgresql+asyncpg://...`.
        pool_size: connections kept; on SQLite the readers' number.
        pool_timeout: seconds to wait for a free connection, then `UnavailableError`.
        statement_timeout: seconds a statement on PostgreSQL may take; 0: no limit.
    """

    def __init__(
        self,
        url: str,
        *,
        pool_size: int = 10,
        pool_timeout: float = 2.0,
        statement_timeout: float = 0.0,
    ) -> None:
        self.is_sqlite = make_url(url).get_backend_name() == "sqlite"
        self.engine = _create_engine(url, pool_size, pool_timeout, statement_timeout)
        self._breaker = DatabaseBreaker()
        reading_engine = self.engine.execution_options(**{_READ_ONLY: True})
        self._writing = async_sessionmaker(self.engine, expire_on_commit=False)
        self._reading = async_sessionmaker(reading_engine, expire_on_commit=False)
        self._single = (
            self.engine
            if self.is_sqlite
            else self.engine.execution_options(isolation_level="AUTOCOMMIT")
        )

    @asynccontextmanager
    async def write(self) -> AsyncIterator[AsyncSession]:
        """One read-write transaction; commits at the block's end, rolls back on error.

        Raises:
            UnavailableError: when the database is away or no connection came free.
        """
        with self._breaker.guard():
            async with _trouble_is_unavailable(), self._writing() as db, db.begin():
                yield db

    @asynccontextmanager
    async def read(self) -> AsyncIterator[AsyncSession]:
        """One transaction that only reads.

        Raises:
            UnavailableError: when the database is away or no connection came free.
        """
        with self._breaker.guard():
            async with _trouble_is_unavailable(), self._reading() as db, db.begin():
                yield db

    @asynccontextmanager
    async def statement(self) -> AsyncIterator[AsyncConnection]:
        """A connection for one statement, which is its own transaction (PostgreSQL).

        Committed when its rows are there, at READ COMMITTED: BEGIN and COMMIT would be
        two more round trips.

        Raises:
            UnavailableError: when the database is away or no connection came free.
        """
        with self._breaker.guard():
            async with _trouble_is_unavailable(), self._single.connect() as connection:
                yield connection

    async def fetch_one(
        self, statement: Executable, values: Mapping[str, object]
    ) -> Row[Any] | None:
        """Return the one row of a statement that is its own transaction (PostgreSQL).

        As within `statement`, at two thirds of the cost: SQLAlchemy changes once into
        its other world and back, not for connecting, executing and closing each.

        Args:
            statement: best made once; gives one row or none.
            values: what is bound.

        Raises:
            UnavailableError: when the database is away or no connection came free.
        """

        def fetch() -> Row[Any] | None:
            with self._single.sync_engine.connect() as connection:
                return connection.execute(statement, values).one_or_none()

        with self._breaker.guard():
            async with _trouble_is_unavailable():
                return await greenlet_spawn(fetch)

    def measure(self) -> PoolMeasure:
        """Return how the pool is at the moment."""
        pool = self.engine.pool
        if not isinstance(pool, QueuePool):
            return PoolMeasure(0, 0, self._breaker.is_open)
        return PoolMeasure(pool.checkedout(), pool.checkedin(), self._breaker.is_open)

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
        detail = f"database: {type(error).__name__}"
        if _is_away(error):
            raise DatabaseAwayError(detail=detail) from error
        if _is_busy(error):
            raise UnavailableError(detail=detail) from error
        raise


def _is_away(error: OSError | DBAPIError) -> bool:
    # Also a statement that took too long is an OSError: TimeoutError.
    if isinstance(error, OSError) or error.connection_invalidated:
        return True
    # SQLSTATE classes 08 connection, 53 resources, 57P admin shutdown, crash, starting.
    return _find_state(error).startswith(("08", "53", "57P")) or (
        "connection is closed" in str(error.orig)
    )


def _is_busy(error: OSError | DBAPIError) -> bool:
    """Somebody held a lock for too long: trouble, but the database is there."""
    if isinstance(error, OSError):
        return False
    return _find_state(error) == "55P03" or "database is locked" in str(error.orig)


def _find_state(error: DBAPIError) -> str:
    return str(getattr(error.orig, "sqlstate", None) or "")


def _create_engine(
    url: str, pool_size: int, pool_timeout: float, statement_timeout: float
) -> AsyncEngine:
    if make_url(url).get_backend_name() != "sqlite":
        engine = create_async_engine(
            url,
            pool_size=pool_size,
            max_overflow=0,
            pool_timeout=pool_timeout,
            # An error's text would repeat what was bound: hashes, names (R35).
            hide_parameters=True,
            isolation_level="READ COMMITTED",
            connect_args={
                "timeout": _CONNECT_TIMEOUT,
                "command_timeout": statement_timeout or None,
            },
        )
        event.listen(engine.sync_engine, "handle_error", _drop_silent)
        event.listen(engine.sync_engine, "checkin", _note_use)
        event.listen(engine.sync_engine, "checkout", _check_connection)
        return engine
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


def _drop_silent(context: ExceptionContext) -> None:
    """Give a connection up whose answer did not come: to roll back would wait as long."""
    if isinstance(context.original_exception, TimeoutError):
        context.is_disconnect = True


def _note_use(_connection: Any, record: Any) -> None:
    record.info[_USED_AT] = time.monotonic()


def _check_connection(connection: Any, record: Any, _proxy: Any) -> None:
    """Find out about a connection that was cut before a request meets it.

    As `pool_pre_ping` does, which costs three round trips of each transaction's seven;
    one that was in use just now is only asked whether the peer has closed it.

    Raises:
        DisconnectionError: the pool takes another.
    """
    idle = time.monotonic() - record.info.get(_USED_AT, 0.0)
    if connection.driver_connection.is_closed():
        raise DisconnectionError
    if idle > _PING_AFTER:
        try:
            connection.ping()
        except Exception as error:
            raise DisconnectionError from error


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
