"""The schema's history, and the only way to upgrade a database.

Alembic is imported for an upgrade only: it would take 4 MB in every worker of a program
that only compares revisions.
"""

from __future__ import annotations

import asyncio
import logging
import os
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path

from sqlalchemy import Connection, inspect, make_url, text
from sqlalchemy.ext.asyncio import AsyncSession

from issuer.errors import DatabaseAwayError
from issuer.settings.database_url import is_sqlite
from issuer.storage.advisory_locks import AdvisoryLock, take_lock
from issuer.storage.db import Database
from shared import log

_LOG = logging.getLogger(__name__)


class SchemaBehindError(Exception):
    """The database lacks migrations of this code; the message has the command."""


def upgrade(database_url: str) -> None:
    """Upgrade the database to the newest revision; blocks until the end.

    It runs on its own thread and event loop, so it can be called while a loop runs
    (which it blocks). Missing directories of a SQLite file are created.

    Args:
        database_url: as in `ISSUER_DATABASE_URL`.

    Raises:
        UnavailableError: when the database cannot be reached.
    """
    _make_sqlite_directory(database_url)
    with ThreadPoolExecutor(max_workers=1) as executor:
        executor.submit(asyncio.run, _upgrade(database_url)).result()


async def require_current_schema(database: Database) -> None:
    """Refuse a schema that is older than this code.

    An unknown revision was made by newer code, whose migrations keep older code
    working: it is accepted.

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
        found = await read_revision(db)
    known = list_revisions()
    wanted = known[-1]
    if found == wanted:
        return
    if found is not None and found not in known:
        log.event(_LOG, logging.INFO, "schema.newer", found=found, known=wanted)
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
            await take_lock(database, db, AdvisoryLock.MIGRATIONS)
            connection = await db.connection()
            await connection.run_sync(_run_upgrade)
    finally:
        await database.close()


def _run_upgrade(connection: Connection) -> None:
    from issuer.migrations.upgrading import upgrade_to_newest

    found = _read_revision(connection)
    if found is not None and found not in list_revisions():
        return  # made by newer code; its schema works for us
    upgrade_to_newest(connection)


def list_revisions() -> list[str]:
    """Return the revisions of this code, oldest first, from the names of their files.

    A test compares them with Alembic's chain.
    """
    versions = Path(__file__).parent / "versions"
    return sorted(path.name[1:5] for path in versions.glob("r[0-9]*.py"))


async def read_revision(db: AsyncSession) -> str | None:
    """Return the revision of the schema; None where no migration has run."""
    return await (await db.connection()).run_sync(_read_revision)


def _read_revision(connection: Connection) -> str | None:
    """Return the revision that Alembic wrote; None when it wrote none."""
    if not inspect(connection).has_table("alembic_version"):
        return None
    found = connection.scalar(text("SELECT version_num FROM alembic_version"))
    return None if found is None else str(found)


def lacks_file(database: Database) -> bool:
    """Return whether the file of an SQLite database does not exist."""
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
    # It has hashes and sealed keys, so only its owner may read it, whatever the umask.
    # SQLite gives the files beside it the same mode. SQLite reports a file that cannot
    # be created.
    with suppress(OSError):
        os.close(os.open(path, os.O_CREAT | os.O_EXCL | os.O_RDWR, 0o600))
