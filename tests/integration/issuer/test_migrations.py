"""The migrated schema is the models' schema, however it came about."""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from sqlalchemy import Connection, inspect, text

from issuer import migrations
from issuer.db import Database
from issuer.models import Base
from tests.support.postgres import PostgresServer


@pytest.fixture
def empty_url(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[str]:
    if request.param == "sqlite":
        yield f"sqlite+aiosqlite:///{tmp_path}/new/issuer.db"
        return
    server: PostgresServer = request.getfixturevalue("postgres")
    name = server.create_database()
    yield server.url(name)
    server.drop_database(name)


on_both = pytest.mark.parametrize(
    "empty_url",
    ["sqlite", pytest.param("postgres", marks=pytest.mark.postgres)],
    indirect=True,
)


async def test_the_migrated_schema_is_the_models_schema(database_url: str) -> None:
    database = Database(database_url)

    def compare(connection: Connection) -> list[object]:
        context = MigrationContext.configure(
            connection, opts={"compare_type": True, "compare_server_default": True}
        )
        return compare_metadata(context, Base.metadata)

    async with database.write() as db:
        assert await (await db.connection()).run_sync(compare) == []
    await database.close()


async def test_check_constraints_are_those_of_the_models(database_url: str) -> None:
    # Alembic's comparison does not look at CHECK constraints.
    database = Database(database_url)

    def read_names(connection: Connection) -> set[str | None]:
        inspector = inspect(connection)
        return {
            found["name"]
            for table in Base.metadata.tables
            for found in inspector.get_check_constraints(table)
        }

    async with database.read() as db:
        names = await (await db.connection()).run_sync(read_names)
    await database.close()
    assert names == {"ck_signing_keys_state", "ck_feed_head_single_row"}


@on_both
async def test_each_database_begins_with_an_epoch_of_its_own(empty_url: str) -> None:
    migrations.upgrade(empty_url)
    migrations.upgrade(empty_url)
    database = Database(empty_url)
    async with database.read() as db:
        rows = (await db.execute(text("SELECT id, epoch, seq FROM feed_head"))).all()
    await database.close()
    assert [(row.id, row.seq) for row in rows] == [(1, 0)]
    assert uuid.UUID(rows[0].epoch).version == 4


@on_both
async def test_two_that_migrate_at_once_both_succeed(empty_url: str) -> None:
    await asyncio.gather(
        asyncio.to_thread(migrations.upgrade, empty_url),
        asyncio.to_thread(migrations.upgrade, empty_url),
    )
    database = Database(empty_url)
    await migrations.require_current_schema(database)
    await database.close()


@on_both
async def test_a_database_behind_is_refused_with_the_command_to_run(
    empty_url: str, tmp_path: Path
) -> None:
    (tmp_path / "new").mkdir()
    database = Database(empty_url)
    with pytest.raises(migrations.SchemaBehindError, match="python -m issuer migrate"):
        await migrations.require_current_schema(database)
    await database.close()


async def test_a_database_migrated_by_newer_code_is_accepted(database_url: str) -> None:
    database = Database(database_url)
    async with database.write() as db:
        await db.execute(text("UPDATE alembic_version SET version_num = '9999'"))
    await migrations.require_current_schema(database)
    await asyncio.to_thread(migrations.upgrade, database_url)
    await database.close()
