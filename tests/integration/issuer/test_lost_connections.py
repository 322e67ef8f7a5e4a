"""No connection is lost: each is used again or closed in every case (R58).

A lost one counts against PostgreSQL's `max_connections` until the garbage collector
finds it.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator, Callable, Coroutine, Generator
from contextlib import suppress
from pathlib import Path
from typing import Any

import asyncpg
import pytest
from sqlalchemy import make_url, text

from issuer.errors import DatabaseRefusesWritesError, UnavailableError
from issuer.feed.wake_ups import HEAD_CHANNEL, WakeUps
from issuer.storage.db import Database
from tests.support.processes import eventually

#: The onlooker's own connection has another name.
_ISSUERS = (
    "FROM pg_stat_activity WHERE datname = current_database() "
    "AND application_name = 'gatehouse-issuer'"
)


class Onlooker:
    """Counts the issuer's connections to one database, and ends them."""

    def __init__(self, connection: asyncpg.Connection) -> None:
        self.connection = connection

    async def count(self) -> int:
        return int(await self.connection.fetchval(f"SELECT count(*) {_ISSUERS}"))

    async def end_all(self) -> None:
        await self.connection.execute(f"SELECT pg_terminate_backend(pid) {_ISSUERS}")

    async def wait_for(self, count: int) -> None:
        """Return once there are as many: the server ends one after its client."""

        async def are_as_many() -> bool:
            return await self.count() == count

        await eventually(are_as_many, what=f"{count} connections")


@pytest.fixture
async def onlooker(postgres_url: str) -> AsyncIterator[Onlooker]:
    parsed = make_url(postgres_url)
    connection = await asyncpg.connect(
        host=parsed.query["host"], user="postgres", database=parsed.database
    )
    try:
        yield Onlooker(connection)
    finally:
        await connection.close()


# --- given up while they are at work --------------------------------------------------


@pytest.mark.postgres
async def test_one_at_work_when_the_database_is_closed_is_closed_when_it_is_given_back(
    postgres_url: str, onlooker: Onlooker
) -> None:
    """A read that many share outlives the requests that asked for it."""
    database = Database(postgres_url, pool_size=2)
    async with database.read() as db, database.read() as other:
        await other.execute(text("SELECT 1"))
        await db.execute(text("SELECT 1"))
        await database.close()
        assert await db.scalar(text("SELECT 1")) == 1, "it is not cut off"
    await onlooker.wait_for(0)


async def test_a_file_in_use_when_the_database_is_closed_is_closed_when_it_is_free(
    sqlite_url: str,
) -> None:
    database = Database(sqlite_url, pool_size=2)
    path = Path(make_url(sqlite_url).database or "")

    def count_open() -> int:
        links = (f"/proc/self/fd/{name}" for name in os.listdir("/proc/self/fd"))
        return [os.path.realpath(link) for link in links].count(str(path.resolve()))

    async with database.read() as db:
        await db.execute(text("SELECT 1"))
        await database.close()
        assert count_open() == 1, "it is not cut off"
    assert count_open() == 0


@pytest.mark.postgres
async def test_those_of_a_read_only_server_are_given_up_and_the_pool_keeps_its_size(
    postgres_url: str, onlooker: Onlooker
) -> None:
    database = Database(postgres_url, pool_size=2)
    turn = text("SET SESSION CHARACTERISTICS AS TRANSACTION READ ONLY")
    async with database.read() as db, database.read() as other:
        await db.execute(turn)
        await other.execute(turn)
    async with database.read() as db:
        old = await db.scalar(text("SELECT pg_backend_pid()"))
        with pytest.raises(DatabaseRefusesWritesError):
            await database.require_writable()
        assert await db.scalar(text("SELECT 1")) == 1, "it is not cut off"
        # By now on a new connection, beside the one that is still at work.
        await database.require_writable()
        await onlooker.wait_for(2)
    async with database.read() as db, database.read() as other:
        query = text("SELECT pg_backend_pid()")
        assert old not in {await db.scalar(query), await other.scalar(query)}
        await onlooker.wait_for(2)
    await database.close()
    await onlooker.wait_for(0)


# --- cut off at each step -------------------------------------------------------------


class CutOff:
    """An awaitable, with `cut` run at one of its steps.

    Args:
        work: the awaitable.
        step: the number of the step.
        cut: called then; it gets the future that the step waits for.
    """

    def __init__(self, work: Coroutine[Any, Any, object], step: int, cut: Cut) -> None:
        self._work = work
        self._left = step
        self._cut = cut

    @property
    def is_cut(self) -> bool:
        """Whether the work had as many steps."""
        return self._left < 0

    def __await__(self) -> Generator[Any, Any, None]:
        steps = self._work.__await__()
        error: BaseException | None = None
        while True:
            try:
                future = next(steps) if error is None else steps.throw(error)
            except StopIteration:
                return
            self._left -= 1
            try:
                if self._left == -1:
                    yield from self._cut(future).__await__()
                yield future
                error = None
            except BaseException as raised:
                error = raised


Cut = Callable[[asyncio.Future[object] | None], Coroutine[Any, Any, None]]


async def cancel(_: object) -> None:
    """Cancel the task, which is about to wait."""
    this_task().cancel()


async def cancel_late(future: asyncio.Future[object] | None) -> None:
    """Cancel the task when its future is done, before the task continues."""
    task = this_task()
    if future is None:
        task.cancel()
    else:
        future.add_done_callback(lambda _: task.cancel())


async def cancel_again(_: object) -> None:
    """Cancel the task in each turn of the loop until it ends, as anyio's scopes do."""
    task = this_task()
    loop = asyncio.get_running_loop()

    def deliver() -> None:
        if not task.done():
            task.cancel()
            loop.call_soon(deliver)

    deliver()


def this_task() -> asyncio.Task[object]:
    task = asyncio.current_task()
    assert task is not None
    return task


async def transact(database: Database) -> None:
    """Use the database in each way that there is."""
    async with database.write() as db:
        await db.execute(text("SELECT 1"))
    async with database.read() as db:
        await db.execute(text("SELECT 1"))
    async with database.statement() as connection:
        await connection.execute(text("SELECT 1"))
    await database.fetch_one(text("SELECT 1"), {})
    await database.require_writable()


async def hear(database: Database) -> None:
    """Listen until the first word."""
    wake_ups = WakeUps(database, None, lambda _: wake_ups.close(), lambda: None)
    await wake_ups.listen()


async def run_cut_off(work: Coroutine[Any, Any, object], step: int, cut: Cut) -> bool:
    """Run the work, cut off at a step; return whether it had as many."""
    cut_off = CutOff(work, step, cut)

    async def run() -> None:
        with suppress(asyncio.CancelledError, UnavailableError):
            await cut_off

    await asyncio.create_task(run())
    return cut_off.is_cut


@pytest.mark.postgres
@pytest.mark.parametrize(
    "way",
    [cancel, cancel_late, cancel_again, "ended by the server", "ended and noticed"],
)
async def test_none_is_lost_when_the_first_of_a_pool_is_cut_off(
    postgres_url: str, onlooker: Onlooker, way: Cut | str
) -> None:
    """SQLAlchemy asks for the server's version and more on the first one."""

    async def end_all(_: object) -> None:
        await onlooker.end_all()
        if way == "ended and noticed":
            # The last answer came, and after it the end: the driver uses a connection
            # that it knows to be closed.
            await asyncio.sleep(0.05)

    step = 0
    goes_on = True
    while goes_on:
        database = Database(postgres_url, pool_size=1)
        cut = end_all if isinstance(way, str) else way
        goes_on = await run_cut_off(database.require_writable(), step, cut)
        assert database.measure().in_use == 0, step
        await database.close()
        await onlooker.wait_for(0)
        step += 1
    assert step > 10, "it is cut off at each of its steps"


@pytest.mark.postgres
@pytest.mark.parametrize("way", [cancel, cancel_late, cancel_again])
async def test_none_is_lost_when_a_transaction_is_cut_off(
    postgres_url: str,
    onlooker: Onlooker,
    way: Cut,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    # Each is asked whether it still lives, not only one that was idle for long.
    monkeypatch.setattr("issuer.storage.db._PING_AFTER", -1)
    database = Database(postgres_url, pool_size=1)
    await transact(database)
    step = 0
    while await run_cut_off(transact(database), step, way):
        assert database.measure().in_use == 0, step
        async with database.read() as db:
            await db.execute(text("SELECT 1"))
        await onlooker.wait_for(1)
        step += 1
    assert step > 10, "it is cut off at each of its steps"
    await database.close()
    await onlooker.wait_for(0)


@pytest.mark.postgres
@pytest.mark.parametrize("way", [cancel, cancel_again])
async def test_none_is_lost_when_one_is_cut_off_after_the_database_was_closed(
    postgres_url: str, onlooker: Onlooker, way: Cut
) -> None:
    """Work that begins that late opens a connection of its own, and closes it."""
    database = Database(postgres_url, pool_size=1)
    step = 0
    goes_on = True
    while goes_on:
        await database.close()
        goes_on = await run_cut_off(transact(database), step, way)
        await onlooker.wait_for(0)
        step += 1
    assert step > 10, "it is cut off at each of its steps"


@pytest.mark.postgres
@pytest.mark.parametrize("way", [cancel, cancel_late, cancel_again])
async def test_none_is_lost_when_listening_is_cut_off(
    postgres_url: str, onlooker: Onlooker, way: Cut
) -> None:
    database = Database(postgres_url, pool_size=1)
    await transact(database)
    step = 0
    goes_on = True
    while goes_on:
        listening = asyncio.create_task(run_cut_off(hear(database), step, way))

        async def is_over(listening: asyncio.Task[bool] = listening) -> bool:
            await onlooker.connection.execute(f"NOTIFY {HEAD_CHANNEL}")
            return listening.done()

        await eventually(is_over)
        goes_on = listening.result()
        async with database.read() as db:
            await db.execute(text("SELECT 1"))
        await onlooker.wait_for(1)
        step += 1
    assert step > 10, "it is cut off at each of its steps"
    await database.close()
