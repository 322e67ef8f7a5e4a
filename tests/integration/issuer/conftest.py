"""The issuer on both databases, each built by the migrations."""

from __future__ import annotations

import asyncio
import shutil
from collections.abc import AsyncIterator, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from sqlalchemy import text

from issuer import migrations
from issuer.composition import compose
from issuer.feed.continuity import POSTGRES_FOUND
from issuer.storage.db import Database
from tests.support.issuer_commands import IssuerCommands
from tests.support.issuer_harness import (
    START_MS,
    FakeClock,
    IssuerHarness,
    make_settings,
    resting_issuer,
    running_issuer,
)
from tests.support.postgres import PostgresServer, start_postgres

DATABASES = ["sqlite", pytest.param("postgres", marks=pytest.mark.postgres)]


@pytest.fixture(scope="session")
def commands() -> Iterator[IssuerCommands]:
    """Runs commands of the issuer in processes of their own."""
    made = IssuerCommands()
    yield made
    made.close()


@pytest.fixture(scope="session")
def postgres() -> Iterator[PostgresServer]:
    """A server of this session's own."""
    server = start_postgres()
    yield server
    server.stop()


@pytest.fixture(scope="session")
def postgres_template(postgres: PostgresServer) -> str:
    """The name of a database that the migrations built, with a signing key of
    yesterday.
    """
    name = postgres.create_database()
    _prepare(postgres.url(name))
    return name


@pytest.fixture(scope="session")
def sqlite_template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A database file that the migrations built, with a signing key of yesterday."""
    path = tmp_path_factory.mktemp("sqlite") / "template.db"
    _prepare(f"sqlite+aiosqlite:///{path}")
    return path


@pytest.fixture
def postgres_url(postgres: PostgresServer, postgres_template: str) -> Iterator[str]:
    """The URL of a migrated PostgreSQL database of this test's own."""
    name = postgres.create_database(postgres_template)
    _settle(postgres.url(name))
    yield postgres.url(name)
    postgres.drop_database(name)


@pytest.fixture
def sqlite_url(sqlite_template: Path, tmp_path: Path) -> str:
    """The URL of a migrated SQLite database of this test's own."""
    path = tmp_path / "issuer.db"
    shutil.copyfile(sqlite_template, path)
    shutil.copyfile(f"{sqlite_template}-witness", f"{path}-witness")
    return f"sqlite+aiosqlite:///{path}"


@pytest.fixture(params=DATABASES)
def database_url(request: pytest.FixtureRequest) -> str:
    """The URL of a migrated database of this test's own, of either kind."""
    return request.getfixturevalue(f"{request.param}_url")


@pytest.fixture
async def issuer(database_url: str) -> AsyncIterator[IssuerHarness]:
    """An issuer on either database that answers requests, and does nothing by itself.

    Of the time of a test with one that runs, a third is its background tasks.
    """
    async with resting_issuer(make_settings(database_url)) as harness:
        yield harness


@pytest.fixture
async def running(database_url: str) -> AsyncIterator[IssuerHarness]:
    """A running issuer on either database: its background tasks, too."""
    async with running_issuer(make_settings(database_url)) as harness:
        yield harness


def _settle(url: str) -> None:
    """Take the copy of the template for a copy, not for a restored database."""

    async def note_continuity() -> None:
        database = Database(url, pool_size=1)
        async with database.write() as db:
            statement = f"UPDATE feed_head SET continuity = {POSTGRES_FOUND}"
            await db.execute(text(statement))
        await database.close()

    with ThreadPoolExecutor(max_workers=1) as executor:
        executor.submit(asyncio.run, note_continuity()).result()


def _prepare(url: str) -> None:
    """Migrate, and make the signing key here: a tenth of a second saved per test."""
    migrations.upgrade(url)

    async def make_key() -> None:
        yesterday = FakeClock(START_MS - 86_400_000)
        issuer = compose(make_settings(url), clock=yesterday)
        await issuer.keys.store.ensure_active()
        await issuer.close()

    with ThreadPoolExecutor(max_workers=1) as executor:
        executor.submit(asyncio.run, make_key()).result()
