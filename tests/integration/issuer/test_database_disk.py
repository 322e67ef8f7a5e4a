"""A disk that is full or read-only, a file that is gone: 503 and not ready (R58).

The public keys are answered from memory meanwhile.
"""

from __future__ import annotations

import asyncio
import shutil
import sqlite3
import subprocess
from contextlib import closing
from pathlib import Path

import pytest
from sqlalchemy import make_url

from issuer import migrations
from tests.support.database_trouble import (
    is_unavailable,
    issuer_with_alice,
    name_of,
    readiness,
)
from tests.support.issuer_harness import make_settings, running_issuer
from tests.support.issuer_story import post_login
from tests.support.mounts import small_disk
from tests.support.postgres import PostgresServer, start_postgres
from tests.support.processes import eventually

# --- a full disk ----------------------------------------------------------------------


@pytest.mark.postgres
async def test_a_full_disk_of_postgresql_is_503_and_not_ready_until_there_is_room(
    postgres: PostgresServer, postgres_url: str, tmp_path: Path
) -> None:
    """53100; reads go on, and with room again so do writes."""
    name = name_of(postgres_url)
    with small_disk("1500k", owner="postgres") as disk:
        async with issuer_with_alice(postgres_url) as issuer:
            move_to_disk(postgres, name, disk)
            (filler := disk / "filler").write_bytes(b"")
            fill(filler)
            tokens = None
            for _ in range(200):
                answer = await post_login(issuer)
                if answer.status_code != 200:
                    break
                tokens = answer.json()
            assert is_unavailable(answer), answer.text
            status, reason = await readiness(issuer)
            assert status == 503
            assert "no room left on its disk" in reason
            assert tokens is None or tokens["access_token"]
            assert (
                await issuer.client.get("/.well-known/jwks.json")
            ).status_code == 200
            filler.unlink()

            async def is_ready() -> bool:
                return (await readiness(issuer))[0] == 200

            await eventually(is_ready)
            assert (await post_login(issuer)).status_code == 200
        move_back(postgres, name)


def move_to_disk(server: PostgresServer, database: str, disk: Path) -> None:
    server.run_sql(f"CREATE TABLESPACE small LOCATION '{disk / 'space'}'")
    for table in ("sessions", "write_probes"):
        server.run_sql(
            f"ALTER TABLE {table} SET TABLESPACE small",
            database=database,
        )


def move_back(server: PostgresServer, database: str) -> None:
    for table in ("sessions", "write_probes"):
        server.run_sql(
            f"ALTER TABLE {table} SET TABLESPACE pg_default", database=database
        )
    server.run_sql("DROP TABLESPACE small")


def fill(path: Path) -> None:
    """Write until there is no room."""
    with path.open("ab", buffering=0) as file:
        try:
            while file.write(b"x" * 1024):
                pass
        except OSError:
            return


async def test_a_full_disk_under_sqlite_is_503_and_not_ready_until_there_is_room(
    sqlite_url: str, tmp_path: Path
) -> None:
    path = Path(str(make_url(sqlite_url).database))
    with small_disk("4m") as disk:
        for end in ("", "-witness"):
            shutil.copyfile(f"{path}{end}", f"{disk / path.name}{end}")
        url = f"sqlite+aiosqlite:///{disk / path.name}"
        async with issuer_with_alice(url) as issuer:
            assert (await readiness(issuer))[0] == 200
            fill(disk / "filler")
            answer = await post_login(issuer)
            assert is_unavailable(answer), answer.text
            status, reason = await readiness(issuer)
            assert status == 503
            assert "database or disk is full" in reason
            assert (
                await issuer.client.get("/.well-known/jwks.json")
            ).status_code == 200
            (disk / "filler").unlink()

            async def is_ready() -> bool:
                return (await readiness(issuer))[0] == 200

            await eventually(is_ready)
            assert (await post_login(issuer)).status_code == 200


# --- SQLite that cannot be written or opened ------------------------------------------


async def test_a_read_only_disk_under_sqlite_is_503_and_not_ready(
    sqlite_url: str,
) -> None:
    path = Path(str(make_url(sqlite_url).database))
    with small_disk("8m") as disk:
        for end in ("", "-witness"):
            shutil.copyfile(f"{path}{end}", f"{disk / path.name}{end}")
        subprocess.run(["mount", "-o", "remount,ro", str(disk)], check=True)
        async with running_issuer(
            make_settings(f"sqlite+aiosqlite:///{disk / path.name}")
        ) as issuer:
            answer = await post_login(issuer)
            assert is_unavailable(answer), answer.text
            status, reason = await readiness(issuer)
            assert status == 503
            assert reason.startswith(f"ISSUER_DATABASE_URL: SQLite file {disk}/")
            assert "mounted read-only" in reason


async def test_a_locked_sqlite_file_is_503(
    sqlite_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("issuer.storage.sqlite_engine.BUSY_TIMEOUT", 0.2)
    async with issuer_with_alice(sqlite_url) as issuer:
        other = sqlite3.connect(
            name_of(sqlite_url), timeout=60, check_same_thread=False
        )
        with closing(other):
            # In a thread: the issuer's own transaction must be able to end first.
            await asyncio.to_thread(other.execute, "BEGIN IMMEDIATE")
            answer = await post_login(issuer)
            assert is_unavailable(answer), answer.text
            other.rollback()
        assert (await post_login(issuer)).status_code == 200


@pytest.mark.parametrize(
    ("break_it", "message"),
    [
        (lambda path: path.unlink(), "The file is not there"),
        (lambda path: path.write_bytes(b"x" * 4096), "is damaged"),
        (lambda path: path.write_bytes(b""), "has no complete schema"),
    ],
    ids=["gone", "nonsense", "empty"],
)
async def test_an_invalid_sqlite_file_is_503_and_not_ready(
    sqlite_url: str, break_it: object, message: str
) -> None:
    """A file that is gone is not made again: empty, it would forget every
    revocation.
    """
    path = Path(str(make_url(sqlite_url).database))
    break_it(path)
    async with running_issuer(make_settings(sqlite_url)) as issuer:
        assert is_unavailable(await post_login(issuer))
        status, reason = await readiness(issuer)
        assert (status, message in reason) == (503, True), reason
        assert path.exists() is not message.startswith("The file")


# --- keys from memory -----------------------------------------------------------------


@pytest.mark.postgres
async def test_the_jwks_is_answered_from_memory_for_an_hour() -> None:
    """R58; longer no token lives that was signed before."""
    server = start_postgres()
    url = server.url(server.create_database())
    await asyncio.to_thread(migrations.upgrade, url)
    try:
        async with running_issuer(make_settings(url)) as issuer:
            await issuer.issuer.keys.store.ensure_active()
            jwks = "/.well-known/jwks.json"
            before = await issuer.client.get(jwks)
            assert "max-age=300" in before.headers["Cache-Control"]
            await asyncio.to_thread(server.stop)
            for seconds in (2, 3_000):
                issuer.clock.advance(seconds)
                for _ in range(2):
                    after = await issuer.client.get(jwks)
                    assert (after.status_code, after.content) == (200, before.content)
                    assert after.headers["ETag"] == before.headers["ETag"]
                    assert "max-age=5," in after.headers["Cache-Control"]
            issuer.clock.advance(600)
            assert is_unavailable(await issuer.client.get(jwks))
            issuer.clock.advance(-10_000)
            assert is_unavailable(await issuer.client.get(jwks)), "read in the future"
            issuer.clock.advance(9_000)
            issuer.issuer.keys.store.forget()
            assert is_unavailable(await issuer.client.get(jwks)), "changed by ourselves"
    finally:
        server.stop()
