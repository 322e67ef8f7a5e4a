"""The issuer under test: one process on a PostgreSQL of its own, with accounts."""

from __future__ import annotations

import asyncio
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from sqlalchemy import insert

from deploy.demo.installation import plain_environment
from issuer import migrations
from issuer.hashing.passwords import PasswordHasher
from issuer.settings.issuer_settings import IssuerSettings
from issuer.storage.db import Database
from issuer.storage.tables.users import User
from loadtests.support.fleet import make_issuer_secrets
from loadtests.support.postgres import PostgresServer
from loadtests.support.processes import ProcessFactory, free_port
from loadtests.support.raw_http import send

PASSWORD = "a password of the bench"


@dataclass(frozen=True, slots=True)
class Environment:
    """A running issuer.

    Attributes:
        port: where clients connect.
        pid: its process.
        usernames: of accounts with the password `PASSWORD`.
        workers: its hashing threads.
        cost: bcrypt's.
    """

    port: int
    pid: int
    usernames: tuple[str, ...]
    workers: int
    cost: int


@contextmanager
def running(*, workers: int, cost: int, accounts: int) -> Iterator[Environment]:
    """Run an issuer for the length of the block; all of it is stopped at the end.

    Raises:
        PostgresMissingError: when PostgreSQL is not installed.
    """
    postgres = PostgresServer()
    try:
        with tempfile.TemporaryDirectory(prefix="gatehouse-bench-") as folder:
            factory = ProcessFactory(Path(folder))
            try:
                yield _start(postgres, factory, workers, cost, accounts)
            finally:
                factory.stop_all()
    finally:
        postgres.stop()


def _start(
    postgres: PostgresServer,
    factory: ProcessFactory,
    workers: int,
    cost: int,
    accounts: int,
) -> Environment:
    port, admin_port = free_port(), free_port()
    values = {
        "URL": f"http://127.0.0.1:{port}",
        "AUDIENCE": "bench",
        "DATABASE_URL": postgres.url(postgres.create_database()),
        "BIND": f"127.0.0.1:{port}",
        "ADMIN_BIND": f"127.0.0.1:{admin_port}",
        "HASH_WORKERS": str(workers),
        "BCRYPT_COST": str(cost),
        "LOG_LEVEL": "error",
        # Still counted, and never reached: few sessions are refreshed all the time.
        "REFRESH_LIMIT": "60000",
    }
    env = make_issuer_secrets() | {
        f"ISSUER_{name}": value for name, value in values.items()
    }
    migrations.upgrade(values["DATABASE_URL"])
    given = {name.removeprefix("ISSUER_").lower(): text for name, text in env.items()}
    settings = IssuerSettings(_env_file=None, **given)
    usernames = tuple(f"user{number}" for number in range(accounts))
    asyncio.run(_make_accounts(settings, usernames))
    process = factory.start(
        "issuer",
        (sys.executable, "-m", "issuer"),
        env=plain_environment() | env,
        cwd=Path(tempfile.gettempdir()),
        ready=lambda: send(admin_port, "GET", "/readyz").status == 200,
    )
    return Environment(port, process.pid, usernames, workers, cost)


async def _make_accounts(settings: IssuerSettings, usernames: tuple[str, ...]) -> None:
    """Straight into the table: one hash for all, where the API would make each."""
    hasher = PasswordHasher(settings.password_peppers, cost=settings.bcrypt_cost)
    password_hash = hasher.hash(PASSWORD)
    rows = [
        {
            "id": f"00000000-0000-4000-8000-{number:012d}",
            "username": username,
            "password_hash": password_hash,
            "generation": 0,
            "version": 1,
            "created_at": 0,
            "updated_at": 0,
            "password_changed_at": 0,
        }
        for number, username in enumerate(usernames)
    ]
    database = Database(settings.database_url, pool_size=1)
    try:
        async with database.write() as db:
            await db.execute(insert(User), rows)
    finally:
        await database.close()
