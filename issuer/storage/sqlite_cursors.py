"""Statements of SQLite with one change of threads each.

aiosqlite works in a thread of each connection. SQLAlchemy's cursor changes to it four
times for a statement: to make the cursor, to execute, to fetch and to close. Beside
other load each change waits for a processor and for Python's lock, so together they
took longer than the statement.
"""

from __future__ import annotations

import sqlite3
from collections import deque
from collections.abc import Callable
from typing import Any, Final

import aiosqlite
from sqlalchemy.dialects.sqlite.aiosqlite import (
    AsyncAdapt_aiosqlite_connection,
    AsyncAdapt_aiosqlite_cursor,
    AsyncAdapt_aiosqlite_dbapi,
)

_NOT_EXECUTED: Final = (None, -1, None)


class _Cursor(AsyncAdapt_aiosqlite_cursor):
    """Executes, fetches all rows and closes in one turn of the connection's thread."""

    __slots__ = ("_done",)

    #: Rows that `fetchmany` returns unless a number is given, as in sqlite3.
    arraysize: Any = 1

    def __init__(self, adapt_connection: AsyncAdapt_aiosqlite_connection) -> None:
        # Not that of the base: it changes to the thread to make a cursor.
        self._adapt_connection = adapt_connection
        self._connection = adapt_connection._connection
        self._rows = deque()
        self._done: tuple[Any, int, int | None] = _NOT_EXECUTED

    @property
    def description(self) -> Any:
        """The columns of the rows; None for a statement without rows."""
        return self._done[0]

    @property
    def rowcount(self) -> int:
        """The number of changed rows; -1 when it is not known."""
        return self._done[1]

    @property
    def lastrowid(self) -> Any:
        """The row id of the last inserted row."""
        return self._done[2]

    async def _async_soft_close(self) -> None:
        """Do nothing: the cursor is closed."""

    def close(self) -> None:
        """Drop the rows that were not read."""
        self._rows.clear()

    async def _execute_async(self, operation: Any, parameters: Any) -> None:
        given = () if parameters is None else parameters
        await self._run(lambda cursor: cursor.execute(operation, given))

    async def _executemany_async(self, operation: Any, seq_of_parameters: Any) -> None:
        await self._run(lambda cursor: cursor.executemany(operation, seq_of_parameters))

    async def _run(self, work: Callable[[Any], object]) -> None:
        connection: Any = self._connection

        def run() -> tuple[Any, list[Any], int, int | None]:
            cursor = connection._conn.cursor()
            try:
                work(cursor)
                described = cursor.description
                rows = cursor.fetchall() if described else []
                # After the rows: SQLite counts while it returns them.
                return described, rows, cursor.rowcount, cursor.lastrowid
            finally:
                cursor.close()

        async with self._adapt_connection._execute_mutex:
            described, rows, count, last = await connection._execute(run)
        self._rows = deque(rows)
        self._done = described, count, last


class _Connection(AsyncAdapt_aiosqlite_connection):
    __slots__ = ()

    # Typed as that very class in SQLAlchemy.
    _cursor_cls: Any = _Cursor


class QuickSqlite(AsyncAdapt_aiosqlite_dbapi):
    """aiosqlite as SQLAlchemy takes it (`create_engine(module=...)`)."""

    def __init__(self) -> None:
        super().__init__(aiosqlite, sqlite3)

    def connect(self, *arg: Any, **kw: Any) -> AsyncAdapt_aiosqlite_connection:
        """Open a connection, with our cursors."""
        made: Any = super().connect(*arg, **kw)
        return _Connection(self, made._connection)
