"""Checks of the database: reachable, its version, clock, schema, connections, keys."""

from __future__ import annotations

import time
from typing import Final

from sqlalchemy import text
from sqlalchemy.exc import DBAPIError
from sqlalchemy.ext.asyncio import AsyncSession

from issuer import migrations
from issuer.checking.signing_keys import check_signing_keys, check_stored_keys
from issuer.errors import IssuerError, UnavailableError
from issuer.settings.database_url import parse_postgres_url
from issuer.settings.issuer_settings import IssuerSettings
from issuer.storage.db import Database
from issuer.storage.postgres_connections import PostgresConnector
from issuer.storage.sqlite_engine import check_sqlite_version
from shared.checking.findings import Findings

_URL: Final = "ISSUER_DATABASE_URL"
_POOL: Final = "ISSUER_DATABASE_POOL_SIZE"
#: What docs/database.md asks for.
_LEAST_POSTGRES: Final = 130_000
#: Seconds by which the clocks of issuer and database may differ unnoticed.
_CLOCK_WARNING: Final = 2.0
_CLOCK_ERROR: Final = 60.0
#: Seconds for one statement of a check.
_STATEMENT: Final = 10.0
_LIMITS: Final = text("""\
    SELECT current_setting('max_connections')::int
             - current_setting('superuser_reserved_connections')::int AS server,
           (SELECT datconnlimit FROM pg_database
             WHERE datname = current_database()) AS database,
           (SELECT rolconnlimit FROM pg_roles
             WHERE rolname = current_user) AS role""")


async def check_database(settings: IssuerSettings, findings: Findings) -> None:
    """Check the database and what is in it; write nothing."""
    try:
        check_sqlite_version()
        database = Database(
            settings.database_url,
            pool_size=1,
            statement_timeout=_STATEMENT,
            may_write=False,
        )
    except IssuerError as error:
        findings.error("database.version", _URL, error.description, "upgrade Python")
        return
    try:
        await _check(database, settings, findings)
    except UnavailableError as error:
        findings.error(
            "database.reachable",
            _URL,
            error.detail or error.description,
            "docs/database.md lists what can be wrong",
        )
    except DBAPIError as error:
        kind = type(error.orig or error).__name__
        findings.error(
            "database.reachable",
            _URL,
            f"it answers, and refuses ({kind})",
            "look at the database's own log; this user needs every right to its tables",
        )
    finally:
        await database.close()


async def _check(
    database: Database, settings: IssuerSettings, findings: Findings
) -> None:
    async with database.read() as db:
        if not database.is_sqlite:
            await _check_server(database, db, settings, findings)
        else:
            await db.execute(text("SELECT count(*) FROM sqlite_master"))
            findings.ok("database.reachable", _URL, "the SQLite file can be read")
        is_usable = await _check_schema(db, findings)
        if is_usable:
            now = int(time.time())
            await check_signing_keys(db, settings, findings, now=now)
            await check_stored_keys(db, settings, findings, now=now)
    if settings.listen_url:
        await _check_listening(settings, findings)


async def _check_server(
    database: Database,
    db: AsyncSession,
    settings: IssuerSettings,
    findings: Findings,
) -> None:
    version = int(await db.scalar(text("SHOW server_version_num")) or 0)
    shown = f"PostgreSQL {version // 10_000}.{version % 10_000}"
    if version < _LEAST_POSTGRES:
        findings.error(
            "database.version",
            _URL,
            f"{shown} is too old",
            f"upgrade it to {_LEAST_POSTGRES // 10_000} or newer",
        )
    else:
        findings.ok("database.version", _URL, f"{shown} answers")
    is_reading = await db.scalar(
        text(
            "SELECT pg_is_in_recovery()"
            " OR current_setting('default_transaction_read_only')::boolean"
        )
    )
    if is_reading:
        findings.error(
            "database.writable",
            _URL,
            "the server takes no writes: it is a standby, or set read-only",
            "name the primary, or all servers with target_session_attrs=read-write",
        )
    await _check_clock(db, findings)
    is_pooled = database.connector is not None and database.connector.is_pooled
    await _check_connections(db, settings, findings, is_pooled=is_pooled)


async def _check_clock(db: AsyncSession, findings: Findings) -> None:
    """Compare the clocks; half the time of the question is the error."""
    before = time.time()
    there = float(
        await db.scalar(text("SELECT extract(epoch FROM clock_timestamp())")) or 0
    )
    after = time.time()
    difference, error = there - (before + after) / 2, (after - before) / 2
    least = max(0.0, abs(difference) - error)
    shown = f"its clock is {_ahead(difference)} this machine's (+-{error:.3f} s)"
    remedy = "let NTP set the clocks of both machines"
    if least > _CLOCK_ERROR:
        findings.error("database.clock", _URL, shown, remedy)
    elif least > _CLOCK_WARNING:
        findings.warn("database.clock", _URL, shown, remedy)
    else:
        findings.ok("database.clock", _URL, shown)


def _ahead(seconds: float) -> str:
    return f"{abs(seconds):.3f} s {'ahead of' if seconds >= 0 else 'behind'}"


async def _check_connections(
    db: AsyncSession,
    settings: IssuerSettings,
    findings: Findings,
    *,
    is_pooled: bool,
) -> None:
    """Compare the connections of all workers with what the server allows.

    Each worker has its pool and one connection that listens. Other replicas and
    programs share the server, which only an operator can count.
    """
    needed = settings.workers * (settings.database_pool_size + 1)
    if is_pooled:
        findings.ok(
            "database.connections",
            _POOL,
            f"up to {needed} connections to the pooler in front of the server",
        )
        return
    row = (await db.execute(_LIMITS)).one()
    allowed = min(limit for limit in row if limit is not None and limit >= 0)
    shown = f"up to {needed} connections of this issuer, and {allowed} are allowed"
    remedy = f"lower {_POOL} or ISSUER_WORKERS, raise max_connections, or use a pooler"
    if needed > allowed:
        findings.error("database.connections", _POOL, shown, remedy)
    elif 2 * needed > allowed:
        findings.warn(
            "database.connections",
            _POOL,
            f"{shown}: a second issuer has no room",
            remedy,
        )
    else:
        findings.ok("database.connections", _POOL, shown)


async def _check_schema(db: AsyncSession, findings: Findings) -> bool:
    """Return whether the tables of this program can be read."""
    found, known = await migrations.read_revision(db), migrations.list_revisions()
    if found == known[-1]:
        findings.ok("database.schema", _URL, f"the schema is at revision {found}")
        return True
    if found is not None and found not in known:
        findings.warn(
            "database.schema",
            _URL,
            f"the schema is at revision {found}, which is newer than this program's "
            f"{known[-1]}",
            "it works; upgrade this program too",
        )
        return True
    missing = len(known) - (known.index(found) + 1 if found else 0)
    findings.error(
        "database.schema",
        _URL,
        f"the schema is at revision {found or 'none'}, and {missing} migrations are "
        f"missing up to {known[-1]}",
        "make a backup, then run `python -m issuer migrate`",
    )
    return False


async def _check_listening(settings: IssuerSettings, findings: Findings) -> None:
    """Check that ISSUER_LISTEN_URL leads to a server, and past any pooler."""
    connector = PostgresConnector(parse_postgres_url(settings.listen_url))
    try:
        connection = await connector.open()
    except Exception as error:
        # The driver's messages may name the user and the database.
        findings.error(
            "database.listening",
            "ISSUER_LISTEN_URL",
            f"it cannot be reached ({type(error).__name__})",
            "name the PostgreSQL server itself, with the port that it listens on",
        )
        return
    await connection.close()
    if connector.is_pooled:
        findings.error(
            "database.listening",
            "ISSUER_LISTEN_URL",
            "it leads to a pooler, through which LISTEN hears nothing",
            "name the PostgreSQL server itself",
        )
    else:
        findings.ok("database.listening", "ISSUER_LISTEN_URL", "the server answers")
