"""The schema's history, and the one way to bring a database up to date.

Nothing here needs an `alembic.ini`: the package knows its own place and takes the
database as an argument.
"""

from __future__ import annotations

import asyncio
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from alembic import command
from alembic.config import Config
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory
from alembic.util import CommandError
from sqlalchemy import Connection, make_url, text

from issuer.db import Database

#: Two that migrate at the same time go one after the other on PostgreSQL; on SQLite
#: BEGIN IMMEDIATE does that.
_ADVISORY_LOCK = 0x6761_7465


class SchemaBehindError(Exception):
    """The database lacks migrations that this code needs; the message says what to do."""


def upgrade(database_url: str) -> None:
    """Bring the database to the newest revision; blocks until that is done.

    Runs on a thread and an event loop of its own, so it may also be called where a loop
    already runs (and blocks it). Missing directories of a SQLite file are made.

    Args:
        database_url: as in `ISSUER_DATABASE_URL`.

    Raises:
        UnavailableError: when the database cannot be reached.
    """
    _make_sqlite_directory(database_url)
    with ThreadPoolExecutor(max_workers=1) as executor:
        executor.submit(asyncio.run, _upgrade(database_url)).result()


async def require_current_schema(database: Database) -> None:
    """Refuse to work on a schema older than this code.

    A revision this code does not know was made by newer code, whose migrations keep the
    old code working: it is accepted.

    Raises:
        SchemaBehindError: naming both revisions and the command to run.
        UnavailableError: when the database cannot be reached.
    """
    async with database.read() as db:
        connection = await db.connection()
        found = await connection.run_sync(_read_revision)
    script = ScriptDirectory.from_config(_make_config())
    wanted = script.get_current_head()
    if found == wanted or (found is not None and not _is_known(script, found)):
        return
    raise SchemaBehindError(
        f"The database is at revision {found or 'none'}, this program needs {wanted}: "
        "run `python -m issuer migrate` first."
    )


async def _upgrade(database_url: str) -> None:
    database = Database(database_url, pool_size=1)
    try:
        async with database.write() as db:
            if not database.is_sqlite:
                await db.execute(
                    text("SELECT pg_advisory_xact_lock(:id)"), {"id": _ADVISORY_LOCK}
                )
            connection = await db.connection()
            await connection.run_sync(_run_upgrade)
    finally:
        await database.close()


def _run_upgrade(connection: Connection) -> None:
    config = _make_config()
    found = _read_revision(connection)
    if found is not None and not _is_known(ScriptDirectory.from_config(config), found):
        return  # newer code was here; its schema serves us too
    config.attributes["connection"] = connection
    command.upgrade(config, "head")


def _make_config() -> Config:
    config = Config()
    # Alembic keeps options in a ConfigParser, which reads `%` as interpolation.
    here = str(Path(__file__).parent).replace("%", "%%")
    config.set_main_option("script_location", here)
    config.set_main_option("path_separator", "os")
    return config


def _read_revision(connection: Connection) -> str | None:
    return MigrationContext.configure(connection).get_current_revision()


def _is_known(script: ScriptDirectory, revision: str) -> bool:
    try:
        return script.get_revision(revision) is not None
    except CommandError:
        return False


def _make_sqlite_directory(database_url: str) -> None:
    url = make_url(database_url)
    if url.get_backend_name() == "sqlite" and url.database not in (None, ":memory:"):
        Path(str(url.database)).parent.mkdir(parents=True, exist_ok=True)
