"""Statements on SQLite change threads once, and writers take turns."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import aiosqlite
import pytest
from sqlalchemy import text
from sqlalchemy.exc import IntegrityError

from issuer.errors import UnavailableError
from issuer.storage.db import Database


@pytest.fixture
async def database(tmp_path: Path) -> AsyncIterator[Database]:
    made = Database(f"sqlite+aiosqlite:///{tmp_path}/words.db", may_create=True)
    async with made.write() as db:
        await db.execute(text("CREATE TABLE words (id INTEGER PRIMARY KEY, word TEXT)"))
        await db.execute(
            text("INSERT INTO words (word) VALUES (:word)"),
            [{"word": "one"}, {"word": "two"}, {"word": "three"}],
        )
    yield made
    await made.close()


async def test_rows_and_columns_arrive(database: Database) -> None:
    async with database.read() as db:
        found = await db.execute(text("SELECT id, word FROM words ORDER BY id"))
        assert list(found.keys()) == ["id", "word"]
        assert found.fetchone() == (1, "one")
        assert found.fetchmany() == [(2, "two")]
        assert found.fetchall() == [(3, "three")]
        assert found.fetchall() == []


async def test_changes_are_counted(database: Database) -> None:
    async with database.write() as db:
        changed: Any = await db.execute(
            text("UPDATE words SET word = 'x' WHERE id > 1")
        )
        assert changed.rowcount == 2
        returned = await db.execute(text("DELETE FROM words RETURNING id"))
        assert sorted(returned.scalars()) == [1, 2, 3]
        inserted: Any = await db.execute(text("INSERT INTO words (id) VALUES (77)"))
        assert inserted.lastrowid == 77
        assert not inserted.returns_rows


async def test_error_is_that_of_the_database_and_rolls_back(database: Database) -> None:
    async def replace() -> None:
        async with database.write() as db:
            await db.execute(text("DELETE FROM words WHERE id = 1"))
            await db.execute(text("INSERT INTO words (id) VALUES (2)"))

    with pytest.raises(IntegrityError):
        await replace()
    with pytest.raises(UnavailableError):
        async with database.read() as db:
            await db.execute(text("SELECT missing FROM words"))
    async with database.read() as db:
        assert await db.scalar(text("SELECT count(*) FROM words")) == 3


async def test_one_turn_of_the_thread_for_each_statement(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    turns: list[object] = []
    execute: Any = aiosqlite.Connection._execute

    async def counted(connection: aiosqlite.Connection, *work: Any) -> Any:
        turns.append(work)
        return await execute(connection, *work)

    monkeypatch.setattr(aiosqlite.Connection, "_execute", counted)
    async with database.read() as db:
        for _ in range(5):
            await db.execute(text("SELECT word FROM words"))
    # Besides those, the transaction begins and ends.
    assert len(turns) <= 5 + 3


async def test_writers_take_turns(database: Database) -> None:
    """Left to SQLite, each would look for its lock in pauses, and come late."""
    ended: list[int] = []

    async def write(number: int) -> None:
        async with database.write() as db:
            await db.execute(text("UPDATE words SET word = 'x'"))
            await asyncio.sleep(0.02)
            ended.append(number)

    began = time.monotonic()
    await asyncio.gather(*map(write, range(20)))
    assert ended == list(range(20))
    # In pauses of up to 100 ms it takes some seconds.
    assert time.monotonic() - began < 2


async def test_writer_that_waits_too_long_is_refused(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("issuer.storage.db.BUSY_TIMEOUT", 0.05)
    async with database.write() as db:
        await db.execute(text("UPDATE words SET word = 'x'"))
        with pytest.raises(UnavailableError):
            async with database.write():
                pass
    # Its turn is not lost, and a cancelled writer gives its turn back.
    cancelled = asyncio.create_task(_write_for_ever(database))
    await asyncio.sleep(0.02)
    cancelled.cancel()
    await asyncio.gather(cancelled, return_exceptions=True)
    async with database.write() as db:
        await db.execute(text("UPDATE words SET word = 'y'"))


async def _write_for_ever(database: Database) -> None:
    async with database.write():
        await asyncio.Event().wait()
