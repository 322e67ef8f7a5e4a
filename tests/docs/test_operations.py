"""Pages whose commands need databases of their own: backup, a first start."""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from deploy.demo.installation import plain_environment
from tests.support.page_commands import ROOT, Block, read_blocks
from tests.support.page_folder import own_database, run, type_blocks
from tests.support.postgres import PostgresServer, start_postgres
from tests.support.processes import ProcessFactory, free_port
from tests.support.raw_http import send

pytestmark = pytest.mark.processes
THIS = "tests/docs/test_operations.py"


def blocks_of(page: str) -> list[Block]:
    return [block for block in read_blocks(page) if THIS in block.tests]


@pytest.fixture
def factory(tmp_path: Path) -> Iterator[ProcessFactory]:
    started = ProcessFactory(tmp_path)
    yield started
    # A shell that is asked to stop leaves what it has started.
    started.kill_all()


@pytest.fixture(scope="module")
def postgres() -> Iterator[PostgresServer]:
    server = start_postgres()
    yield server
    server.stop()


@pytest.mark.postgres
def test_a_postgresql_backup_is_restored_as_the_page_says(
    postgres: PostgresServer, tmp_path: Path
) -> None:
    dump, restore, _ = blocks_of("docs/backup.md")
    own_database(tmp_path)
    database = postgres.create_database()
    env = tmp_path / ".env"
    sqlite = env.read_text()

    def use(name: str) -> None:
        url = f"ISSUER_DATABASE_URL={postgres.url(name)}"
        env.write_text(re.sub("ISSUER_DATABASE_URL=.*", url, sqlite))

    use(database)
    ready = "gatehouse-issuer migrate\necho correct horse battery | gatehouse-issuer create-admin alice\n"
    assert run(ready, tmp_path).returncode == 0
    place = f"export PGHOST={postgres.socket_directory} PGUSER=postgres DB={database}\n"
    type_blocks([Block("", 0, place, ""), dump], tmp_path)
    use("gatehouse_restored")
    type_blocks([Block("", 0, place, ""), restore], tmp_path)
    kept = postgres.run_sql("SELECT username FROM users", database="gatehouse_restored")
    assert kept.strip() == "alice"
    (tmp_path / "issuer.db").unlink()


def test_a_sqlite_backup_has_what_the_database_has(tmp_path: Path) -> None:
    own_database(tmp_path)
    type_blocks([blocks_of("docs/backup.md")[2]], tmp_path)
    os.replace(tmp_path / "backup.db", tmp_path / "issuer.db")
    (tmp_path / "issuer.db-wal").unlink(missing_ok=True)
    (tmp_path / "issuer.db-shm").unlink(missing_ok=True)
    assert run("gatehouse-issuer new-epoch\n", tmp_path).returncode == 0


def test_a_first_start_is_as_the_page_says(
    factory: ProcessFactory, tmp_path: Path
) -> None:
    configs, start = blocks_of("docs/installing.md")
    path = {"/opt/gatehouse/bin/": ""}
    typed, shown = configs.with_words(path).removeprefix("$ ").split("\n", 1)
    printed = run(f"{typed}\n", tmp_path).stdout.splitlines()
    assert set(shown.splitlines()) - {"..."} <= set(printed)

    port, admin = free_port(), free_port()
    ours = {
        "ISSUER_URL=": f"ISSUER_URL=http://127.0.0.1:{port}",
        "ISSUER_AUDIENCE=": "ISSUER_AUDIENCE=api",
        "#ISSUER_BIND=": f"ISSUER_BIND=127.0.0.1:{port}",
        "#ISSUER_ADMIN_BIND=": f"ISSUER_ADMIN_BIND=127.0.0.1:{admin}",
        "#ISSUER_DATABASE_URL=": "ISSUER_DATABASE_URL=sqlite+aiosqlite:///issuer.db",
    }
    edits = "".join(f"sed -i 's|^{old}.*|{new}|' .env\n" for old, new in ours.items())
    text = re.sub(r"^# in .env.*\n", edits, start.text, flags=re.M)
    text = text.replace("create-admin alice", "create-admin alice <password")
    (tmp_path / "password").write_text("correct horse battery\n")
    environment = plain_environment()
    here = f"{Path(sys.executable).parent}:{environment['PATH']}"
    factory.start(
        "first-start",
        ("sh", "-eu", "-c", text),
        cwd=tmp_path,
        env=environment | {"PATH": here, "PYTHONPATH": str(ROOT)},
        ready=lambda: send(admin, "GET", "/readyz").status == 200,
    )
