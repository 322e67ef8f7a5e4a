"""The database: one engine, read and write transactions, nothing about tables.

A write transaction on SQLite begins with BEGIN IMMEDIATE: it takes the one write lock
at once. A read transaction that becomes a writer later can fail half-way. On PostgreSQL
it is READ COMMITTED; the feed's counter row depends on that
(docs/design.md, "The revocation feed").

Operations use `async with database.write() as db:`; the end of the block commits.
Writes that must survive an error are committed first, and the error is raised after the
block (R42).
"""

from __future__ import annotations

import asyncio
import secrets
import time
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from typing import Any, NamedTuple

from sqlalchemy import URL, Executable, Row, event, make_url, text
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

from issuer.errors import (
    DatabaseRefusesWritesError,
    DatabaseTroubleError,
)
from issuer.settings.database_url import is_sqlite, parse_postgres_url
from issuer.settings.issuer_settings import IssuerSettings
from issuer.storage.database_attempts import note_commit
from issuer.storage.database_breaker import DatabaseBreaker
from issuer.storage.database_trouble import (
    DRIVER_ERRORS,
    DatabasePlace,
    find_trouble,
    is_useless_after,
)
from issuer.storage.pooled_connections import PooledConnections
from issuer.storage.postgres_connections import PostgresConnector, TlsFileError
from issuer.storage.sqlite_engine import BUSY_TIMEOUT, READ_ONLY, create_sqlite

_SETTING = "ISSUER_DATABASE_URL"
#: Seconds in the pool after which a PostgreSQL connection is tested before use.
_PING_AFTER = 0.5
_USED_AT = "gatehouse_used_at"
_ASK_READ_ONLY = text(
    "SELECT pg_is_in_recovery() OR current_setting('transaction_read_only')::boolean"
)
#: Large enough that a table or a log must grow.
_PROBE_BYTES = 65_536
_PROBE = text(
    "INSERT INTO write_probes (id, filler) VALUES (1, :filler)"
    " ON CONFLICT (id) DO UPDATE SET filler = excluded.filler"
)


class PoolMeasure(NamedTuple):
    """The state of the pool.

    Attributes:
        in_use: connections in use.
        idle: unused connections.
        is_away: whether the database counts as away.
    """

    in_use: int
    idle: int
    is_away: bool


class Database:
    """Opens transactions on one engine.

    Args:
        url: in the form of `ISSUER_DATABASE_URL`.
        pool_size: connections kept; on SQLite the number of readers.
        pool_timeout: seconds to wait for a free connection.
        statement_timeout: seconds a statement on PostgreSQL may take; 0: no limit.
        may_write: whether to write. `check` must not: even SQLite's write-ahead log is
            a change of the file.
        may_create: whether to create a missing SQLite file. Only migrations do: an
            empty file in place of a lost one would hide the loss.

    Attributes:
        place: names the database in messages.
        connector: opens its connections; None on SQLite.
    """

    def __init__(
        self,
        url: str,
        *,
        pool_size: int = 10,
        pool_timeout: float = 2.0,
        statement_timeout: float = 0.0,
        may_create: bool = False,
        may_write: bool = True,
    ) -> None:
        self.is_sqlite = is_sqlite(url)
        self.connector: PostgresConnector | None = None
        if self.is_sqlite:
            parsed = make_url(url).set(drivername="sqlite+aiosqlite")
            self.place = DatabasePlace(_SETTING, str(parsed.database), is_sqlite=True)
            self.engine = create_sqlite(
                parsed, pool_size, pool_timeout, may_create, may_write
            )
        else:
            target = parse_postgres_url(url)
            self.place = DatabasePlace(_SETTING, target.address, target.database or "")
            self.connector = PostgresConnector(
                target, statement_timeout=statement_timeout
            )
            self.engine = _create_postgres(self.connector, pool_size, pool_timeout)
        self._connections = PooledConnections(self.engine)
        self._turns = asyncio.Lock()
        self._breaker = DatabaseBreaker()
        self._write_trouble: DatabaseRefusesWritesError | None = None
        reading_engine = self.engine.execution_options(**{READ_ONLY: True})
        self._writing = async_sessionmaker(self.engine, expire_on_commit=False)
        self._reading = async_sessionmaker(reading_engine, expire_on_commit=False)
        self._single = (
            self.engine
            if self.is_sqlite
            else self.engine.execution_options(isolation_level="AUTOCOMMIT")
        )

    @classmethod
    def of(cls, settings: IssuerSettings) -> Database:
        """Return the database of these settings."""
        return cls(
            settings.database_url,
            pool_size=settings.database_pool_size,
            pool_timeout=settings.database_pool_timeout,
            statement_timeout=settings.database_statement_timeout,
        )

    @asynccontextmanager
    async def write(self) -> AsyncIterator[AsyncSession]:
        """Run a read-write transaction; commit at the block's end, roll back on error.

        Raises:
            DatabaseConflictError: when PostgreSQL rolled it back in favour of another.
            UnavailableError: when the database is away or no connection came free.
        """
        with self._breaker.guard():
            async with (
                self._trouble_is_unavailable(),
                self._turn_to_write(),
                self._writing() as db,
                db.begin(),
            ):
                yield db
        note_commit()

    @asynccontextmanager
    async def read(self) -> AsyncIterator[AsyncSession]:
        """Run a read-only transaction.

        Raises:
            UnavailableError: when the database is away or no connection came free.
        """
        with self._breaker.guard():
            async with (
                self._trouble_is_unavailable(),
                self._reading() as db,
                db.begin(),
            ):
                yield db

    @asynccontextmanager
    async def statement(self) -> AsyncIterator[AsyncConnection]:
        """Return a connection for one statement without a transaction (PostgreSQL).

        It is committed once its rows have arrived, at READ COMMITTED. BEGIN and COMMIT
        would add two round trips.

        Raises:
            UnavailableError: when the database is away or no connection came free.
        """
        with self._breaker.guard():
            async with self._trouble_is_unavailable(), self._single.connect() as one:
                yield one
        note_commit()

    async def fetch_one(
        self, statement: Executable, values: Mapping[str, object]
    ) -> Row[Any] | None:
        """Return the one row of a statement that is its own transaction (PostgreSQL).

        Like `statement`, at two thirds of the cost: SQLAlchemy switches greenlets once,
        not separately for connecting, executing and closing.

        Args:
            statement: returns one row or none; build it once and reuse it.
            values: bound to its parameters.

        Raises:
            UnavailableError: when the database is away or no connection came free.
        """

        def fetch() -> Row[Any] | None:
            with self._single.sync_engine.connect() as connection:
                return connection.execute(statement, values).one_or_none()

        with self._breaker.guard():
            async with self._trouble_is_unavailable():
                row = await greenlet_spawn(fetch)
        note_commit()
        return row

    async def require_writable(self) -> None:
        """Return when the database accepts writes.

        This costs one read on PostgreSQL and nothing on SQLite. After a refused write
        it writes a probe: a full disk can still be read, and the cause may have passed.

        Raises:
            UnavailableError: when it does not; the detail gives the reason.
        """
        if not self.is_sqlite:
            async with self.read() as db:
                is_read_only = await db.scalar(_ASK_READ_ONLY)
            if is_read_only:
                # The next check opens a new connection, which may reach a primary.
                self._connections.replace()
                raise DatabaseRefusesWritesError(
                    detail=self.place.tell("is read-only; name the primary")
                )
        if self._write_trouble is not None:
            async with self.write() as db:
                await db.execute(_PROBE, {"filler": secrets.token_bytes(_PROBE_BYTES)})
            self._write_trouble = None

    def measure(self) -> PoolMeasure:
        """Return the present state of the pool."""
        pool = self.engine.pool
        if not isinstance(pool, QueuePool):
            return PoolMeasure(0, 0, self._breaker.is_open)
        return PoolMeasure(pool.checkedout(), pool.checkedin(), self._breaker.is_open)

    async def close(self) -> None:
        """Close every connection; those in use when they are returned."""
        await self._connections.close()

    @asynccontextmanager
    async def _turn_to_write(self) -> AsyncIterator[None]:
        """On SQLite, wait until no other task of this process writes.

        SQLite has one write lock, and waits for it in pauses of up to 100 ms, so the
        lock stays free for as long after each wait.

        Raises:
            TimeoutError: another one has written for too long.
        """
        if not self.is_sqlite:
            yield
            return
        async with asyncio.timeout(BUSY_TIMEOUT):
            await self._turns.acquire()
        try:
            yield
        finally:
            self._turns.release()

    @asynccontextmanager
    async def _trouble_is_unavailable(self) -> AsyncIterator[None]:
        """Turn database trouble into a 503, never a 401 or 500 (R38, R58).

        Faults of our own statements pass: an `IntegrityError`, a syntax error.
        """
        try:
            yield
        except PoolTimeoutError as error:
            raise DatabaseTroubleError(
                detail=self.place.tell(
                    "is in use by all connections of the pool "
                    "(ISSUER_DATABASE_POOL_SIZE); none came free in time"
                )
            ) from error
        except (OSError, DBAPIError, *DRIVER_ERRORS, TlsFileError) as error:
            trouble = find_trouble(error, self.place)
            if trouble is None:
                raise
            if isinstance(trouble, DatabaseRefusesWritesError):
                self._write_trouble = trouble
            raise trouble from error


def _create_postgres(
    connector: PostgresConnector, pool_size: int, pool_timeout: float
) -> AsyncEngine:
    engine = create_async_engine(
        # The connector knows the servers and how to reach them.
        URL.create("postgresql+asyncpg"),
        pool_size=pool_size,
        max_overflow=0,
        pool_timeout=pool_timeout,
        # An error's text would repeat the bound values: hashes, names (R35).
        hide_parameters=True,
        isolation_level="READ COMMITTED",
        connect_args={
            "async_creator_fn": connector.open,
            "prepared_statement_name_func": connector.name_statement,
        },
    )
    event.listen(engine.sync_engine, "handle_error", _drop_useless)
    event.listen(engine.sync_engine, "checkin", _note_use)
    event.listen(engine.sync_engine, "checkout", _check_connection)
    return engine


def _drop_useless(context: ExceptionContext) -> None:
    """Drop a connection and all connections of the pool that are as old.

    They lead to the same server: an old primary, or one that is stopping.
    """
    error = context.original_exception
    if is_useless_after(error):
        context.is_disconnect = True
        # A late answer says nothing about the other connections.
        context.invalidate_pool_on_disconnect = not isinstance(error, TimeoutError)


def _note_use(_connection: Any, record: Any) -> None:
    record.info[_USED_AT] = time.monotonic()


def _check_connection(connection: Any, record: Any, _proxy: Any) -> None:
    """Detect a cut connection before a request uses it.

    `pool_pre_ping` would cost three of each transaction's seven round trips. For a
    connection used a moment ago, only a close by the peer is checked.

    Raises:
        DisconnectionError: makes the pool choose another connection.
    """
    idle = time.monotonic() - record.info.get(_USED_AT, 0.0)
    if connection.driver_connection.is_closed():
        raise DisconnectionError
    if idle > _PING_AFTER:
        try:
            # With the simple protocol: one round trip, nothing is prepared.
            connection.run_async(_ping)
        except Exception as error:
            raise DisconnectionError from error


async def _ping(connection: Any) -> None:
    await connection.execute("SELECT 1")
