"""Writers of one process take turns on SQLite."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from sqlalchemy import text

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
