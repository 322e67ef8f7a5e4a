"""The migrated schema is the models' schema, however it came about."""

from __future__ import annotations

import asyncio
import importlib
import subprocess
import sys
import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest
from alembic import command
from alembic.autogenerate import compare_metadata
from alembic.config import Config
from alembic.migration import MigrationContext
from alembic.util import CommandError
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


ROOT = Path(__file__).resolve().parents[3]


def run_alembic(*arguments: str) -> subprocess.CompletedProcess[str]:
    """Run Alembic's own command in the checkout, as somebody used to it would."""
    return subprocess.run(
        [sys.executable, "-m", "alembic.config", *arguments],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


@pytest.mark.parametrize(
    "arguments",
    [
        ("downgrade", "-1"),
        ("downgrade", "base"),
        ("downgrade", "0007:0006", "--sql"),
        ("upgrade", "head"),
        ("upgrade", "head", "--sql"),
        ("current",),
        ("check",),
        ("stamp", "head"),
    ],
    ids=" ".join,
)
def test_a_plain_alembic_names_our_command_and_the_way_back(
    arguments: tuple[str, ...],
) -> None:
    """It has no database: that is in our settings, and an upgrade takes a lock."""
    run = run_alembic(*arguments)
    told = run.stdout + run.stderr
    assert run.returncode != 0
    assert "python -m issuer migrate" in told
    assert "downgrade is not supported" in told
    assert "backup" in told
    assert "Traceback" not in told


def test_a_plain_alembic_shows_the_revisions() -> None:
    run = run_alembic("history")
    assert run.returncode == 0, run.stderr
    assert "<base> -> 0001" in run.stdout


def find_revisions() -> list[str]:
    folder = Path(migrations.__file__).parent / "versions"
    return sorted(path.stem for path in folder.glob("r*.py"))


@pytest.mark.parametrize("name", find_revisions())
def test_no_revision_can_be_downgraded(name: str) -> None:
    """The template has the same line, so new revisions have it too."""
    module = importlib.import_module(f"issuer.migrations.versions.{name}")
    with pytest.raises(CommandError, match="downgrade is not supported"):
        module.downgrade()


async def test_a_downgrade_with_a_connection_is_refused_and_changes_nothing(
    database_url: str,
) -> None:
    """It was an AttributeError."""
    database = Database(database_url)

    def go_back(connection: Connection) -> None:
        config = Config()
        folder = Path(migrations.__file__).parent
        config.set_main_option("script_location", str(folder))
        config.set_main_option("path_separator", "os")
        config.attributes["connection"] = connection
        command.downgrade(config, "base")

    with pytest.raises(CommandError, match=r"restore a backup"):
        async with database.write() as db:
            await (await db.connection()).run_sync(go_back)
    await migrations.require_current_schema(database)
    await database.close()


def test_the_template_of_new_revisions_refuses_a_downgrade() -> None:
    template = Path(migrations.__file__).parent / "script.py.mako"
    assert "downgrade = refuse_downgrade" in template.read_text()
