"""The rows of each table are a metric (R39)."""

from __future__ import annotations

import pytest
from sqlalchemy import text

from issuer.storage.db import Database
from issuer.storage.table_rows import count_rows
from issuer.storage.tables import Base
from tests.support.issuer_harness import IssuerHarness

pytestmark = pytest.mark.timeout(120)


async def analyse(database: Database) -> None:
    """Let PostgreSQL's estimates follow; it does so by itself after a while."""
    if not database.is_sqlite:
        async with database.write() as db:
            await db.execute(text("ANALYZE"))


async def test_r39_rows_of_every_table_are_counted(issuer: IssuerHarness) -> None:
    database = issuer.issuer.base.database
    await analyse(database)
    before = await count_rows(database)
    assert set(before) == set(Base.metadata.tables)
    for name in ("jane", "john"):
        await issuer.create_user(name, "correct horse battery")
    await analyse(database)
    after = await count_rows(database)
    assert after["users"] == before["users"] + 2
    await issuer.issuer.operators.count_rows()
    page = issuer.issuer.base.metrics.render().decode()
    line = f'gatehouse_issuer_table_rows{{table="users"}} {float(after["users"])}'
    assert line in page.splitlines()


async def test_a_large_sqlite_table_is_not_read_to_its_end(sqlite_url: str) -> None:
    database = Database(sqlite_url, pool_size=1)
    async with database.write() as db:
        for n in range(3):
            await db.execute(
                text("INSERT INTO write_probes (id, filler) VALUES (:n, '')"), {"n": n}
            )
    counts = await count_rows(database, most=2)
    await database.close()
    assert counts["write_probes"] == 2
