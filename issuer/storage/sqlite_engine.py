"""The engine of an embedded SQLite database.

Every connection has a write-ahead log, full synchronisation and foreign keys. A
transaction that may write takes the one write lock at its beginning.
"""

from __future__ import annotations

import sqlite3
from typing import Any
from urllib.parse import quote

from sqlalchemy import URL, Connection, event
from sqlalchemy.ext.asyncio import AsyncEngine, create_async_engine

from issuer.errors import UnavailableError

#: The execution option of a transaction that only reads.
READ_ONLY = "gatehouse_read_only"
#: SQLite has RETURNING, which the feed's counter row needs, since 3.35.
MINIMUM_SQLITE = (3, 35, 0)
#: Seconds a writer waits for SQLite's one write lock.
BUSY_TIMEOUT = 10


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


def create_sqlite(
    url: URL,
    pool_size: int,
    pool_timeout: float,
    may_create: bool,
    may_write: bool = True,
) -> AsyncEngine:
    """Return the engine of a database file.

    Args:
        url: `sqlite+aiosqlite:///PATH`.
        pool_size: connections at most.
        pool_timeout: seconds to wait for one of them.
        may_create: make the file if there is none.
        may_write: otherwise every statement that writes is refused.
    """
    engine = create_async_engine(
        url,
        pool_size=pool_size,
        max_overflow=0,
        pool_timeout=pool_timeout,
        hide_parameters=True,
        connect_args={"timeout": BUSY_TIMEOUT},
    )

    mode = "rwc" if may_create else "rw"

    def open_file(
        _dialect: Any, _record: Any, arguments: list[Any], named: dict[str, Any]
    ) -> None:
        arguments[0] = f"file:{quote(str(arguments[0]))}?mode={mode}"
        named["uri"] = True
        # Not on aiosqlite's thread: it outlives a failed connection and then finds the
        # event loop closed.
        sqlite3.connect(arguments[0], uri=True).close()

    event.listen(engine.sync_engine, "do_connect", open_file)
    event.listen(
        engine.sync_engine, "connect", _prepare if may_write else _prepare_reading
    )
    event.listen(engine.sync_engine, "begin", _begin)
    return engine


def _prepare(connection: Any, _record: Any) -> None:
    # sqlite3 would begin deferred transactions by itself; `_begin` begins them.
    connection.isolation_level = None
    try:
        cursor = connection.cursor()
        cursor.execute("PRAGMA journal_mode=WAL")
        # FULL: an acknowledged write survives a power cut, not only a killed process.
        cursor.execute("PRAGMA synchronous=FULL")
        cursor.execute("PRAGMA foreign_keys=ON")
        cursor.close()
    except BaseException:
        # The pool does not own it yet and would not close it.
        connection.close()
        raise


def _prepare_reading(connection: Any, _record: Any) -> None:
    connection.isolation_level = None
    connection.execute("PRAGMA query_only=ON").close()


def _begin(connection: Connection) -> None:
    is_read_only = connection.get_execution_options().get(READ_ONLY, False)
    connection.exec_driver_sql("BEGIN" if is_read_only else "BEGIN IMMEDIATE")
