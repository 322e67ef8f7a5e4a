"""The schema's history, and the one way to bring a database up to date.

Nothing here needs an `alembic.ini`: the package knows its own place and takes the
database as an argument.
"""

from __future__ import annotations

import asyncio
import logging
import os
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path

from alembic import command
from alembic.config import Config
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory
from alembic.util import CommandError
from sqlalchemy import Connection, make_url, text

from issuer.errors import DatabaseAwayError
from issuer.settings.database_url import is_sqlite
from issuer.storage.db import Database
from shared import log

#: Two that migrate at the same time go one after the other on PostgreSQL; on SQLite
#: BEGIN IMMEDIATE does that.
_ADVISORY_LOCK = 0x6761_7465
_LOG = logging.getLogger(__name__)


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
    if lacks_file(database):
        raise SchemaBehindError(
            database.place.tell(
                "is not there: run `python -m issuer migrate` first, which makes it"
            )
        )
    async with database.read() as db:
        connection = await db.connection()
        found = await connection.run_sync(_read_revision)
    script = ScriptDirectory.from_config(_make_config())
    wanted = script.get_current_head()
    if found == wanted:
        return
    if found is not None and not _is_known(script, found):
        log.event(_LOG, logging.INFO, "schema.newer", found=found, known=wanted or "")
        return
    raise SchemaBehindError(
        database.place.tell(
            f"is at revision {found or 'none'}, this program needs {wanted}: run "
            "`python -m issuer migrate` first"
        )
    )


async def _upgrade(database_url: str) -> None:
    database = Database(database_url, pool_size=1, may_create=True)
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


def lacks_file(database: Database) -> bool:
    """Tell whether there is no file yet of an SQLite database."""
    return database.is_sqlite and not Path(database.place.address).exists()


def _make_sqlite_directory(database_url: str) -> None:
    if not is_sqlite(database_url):
        return
    path = Path(make_url(database_url).database or "")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise DatabaseAwayError(
            detail=f"ISSUER_DATABASE_URL: the directory {path.parent} cannot be made: "
            f"{error.strerror}."
        ) from None
    # Hashes and sealed keys are in it: its owner's alone, whatever the umask. SQLite
    # gives the files beside it the same mode. What cannot be made SQLite reports.
    with suppress(OSError):
        os.close(os.open(path, os.O_CREAT | os.O_EXCL | os.O_RDWR, 0o600))
