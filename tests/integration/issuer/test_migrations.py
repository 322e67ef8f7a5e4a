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
from alembic.script import ScriptDirectory
from alembic.util import CommandError
from sqlalchemy import Connection, inspect, text

from issuer import migrations
from issuer.migrations import upgrading
from issuer.storage.db import Database
from issuer.storage.tables.base import Base
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


def test_revisions_by_file_name_are_alembics_chain() -> None:
    script = ScriptDirectory.from_config(upgrading.make_config())
    chain = [revision.revision for revision in script.walk_revisions()]
    assert migrations.list_revisions() == chain[::-1]
    assert script.get_heads() == chain[:1]


def test_program_that_serves_imports_no_alembic() -> None:
    """It takes 4 MB in each worker."""
    program = "import issuer.serve, issuer.app, sys; sys.exit('alembic' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", program], check=False).returncode == 0


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
async def test_each_database_begins_with_its_own_epoch(empty_url: str) -> None:
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
    shown = run.stdout + run.stderr
    assert run.returncode != 0
    assert "python -m issuer migrate" in shown
    assert "downgrade is not supported" in shown
    assert "backup" in shown
    assert "Traceback" not in shown


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


OLD_KEY = text(
    "INSERT INTO personal_keys (id, digest, user_id, name, scopes, created_at,"
    " expires_at) VALUES (:id, :digest, 'u1', 'k', '', 1, 2)"
)


@on_both
async def test_older_keys_get_the_address_of_the_audit_log(
    empty_url: str, tmp_path: Path
) -> None:
    """Revision 0009; and code of 0008 goes on making keys on the newer schema."""
    (tmp_path / "new").mkdir()
    database = Database(empty_url, may_create=True)

    def begin(connection: Connection) -> None:
        config = Config()
        folder = Path(migrations.__file__).parent
        config.set_main_option("script_location", str(folder))
        config.set_main_option("path_separator", "os")
        config.attributes["connection"] = connection
        command.upgrade(config, "0008")

    async with database.write() as db:
        await (await db.connection()).run_sync(begin)
        user = "INSERT INTO users VALUES ('u1', 'alice', '', 0, 1, 1, 1, NULL, 1)"
        await db.execute(text(user))
        for key_id in ("k1", "k2"):
            await db.execute(OLD_KEY, {"id": key_id, "digest": key_id.encode()})
        event = text(
            "INSERT INTO audit_events (at, event, actor, subject, address,"
            " correlation_id, facts) VALUES (1, :event, 'u1', 'u1', :address, '', :facts)"
        )
        for name, address, key_id in [
            ("personal_key.created", "192.0.2.7", "k1"),
            ("personal_key.revoked", "192.0.2.8", "k2"),
        ]:
            facts = f'{{"expires_at":2,"key_id":"{key_id}","scope":""}}'
            given = {"event": name, "address": address, "facts": facts}
            await db.execute(event, given)
    await asyncio.to_thread(migrations.upgrade, empty_url)
    async with database.write() as db:
        await db.execute(OLD_KEY, {"id": "k3", "digest": b"k3"})
        rows = await db.execute(text("SELECT id, address FROM personal_keys"))
        assert dict(tuple(row) for row in rows) == {
            "k1": "192.0.2.7",
            "k2": "",
            "k3": "",
        }
    await database.close()


def test_the_template_of_new_revisions_refuses_a_downgrade() -> None:
    template = Path(migrations.__file__).parent / "script.py.mako"
    assert "downgrade = refuse_downgrade" in template.read_text()
