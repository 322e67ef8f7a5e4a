"""What an operator reads when the database cannot be used: setting, address, next step.

The same for serving, for the migrations and for the other commands. Run in this
process: what is shown is what `main` prints.
"""

from __future__ import annotations

import logging
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from issuer import migrations
from issuer.commands import main as program
from tests.support.database_trouble import name_of
from tests.support.issuer_harness import FEED_TOKEN, make_settings, running_issuer
from tests.support.mounts import small_disk
from tests.support.postgres import PostgresServer, start_postgres
from tests.support.processes import free_port

SECRET = "s3cretpassword"
HBA = """
local all all                    trust
host  all postgres 127.0.0.1/32  trust
host  all issuer   127.0.0.1/32  scram-sha-256
"""
COMMANDS = {
    "serve": [],
    "migrate": ["migrate"],
    "revoke": ["revoke", "--jti", "x"],
}
Say = Callable[[str, str], str]
every_command = pytest.mark.parametrize("command", COMMANDS)


@pytest.fixture(scope="module")
def server() -> Iterator[PostgresServer]:
    """A server with a port, a user with a password and no TLS."""
    server = start_postgres(has_port=True, hba=HBA)
    server.run_sql("CREATE USER issuer PASSWORD 'another'")
    yield server
    server.stop()


@pytest.fixture
def say(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> Iterator[Say]:
    """Run a command, which must end with status 1; return its message about the URL."""
    root = logging.getLogger()
    handlers, level = root.handlers, root.level
    monkeypatch.chdir(tmp_path)
    key = "A" * 43
    for name, value in {
        "URL": "https://issuer.test",
        "AUDIENCE": "api",
        "FEED_TOKEN": FEED_TOKEN,
        "KEY_ENCRYPTION_KEYS": f"k1:{key}",
        "PASSWORD_PEPPERS": f"p1:{key}",
        "REFRESH_KEYS": f"r1:{key}",
    }.items():
        monkeypatch.setenv(f"ISSUER_{name}", value)

    def say(command: str, url: str) -> str:
        monkeypatch.setenv("ISSUER_DATABASE_URL", url)
        status = program.main(COMMANDS[command])
        shown = capsys.readouterr()
        assert status == 1, shown
        lines = shown.err.splitlines()
        assert lines[-1].startswith("ISSUER_DATABASE_URL: "), lines
        assert "Traceback" not in shown.err
        assert SECRET not in shown.out + shown.err
        return lines[-1]

    yield say
    root.handlers, root.level = handlers, level


def url_to(server: PostgresServer, database: str = "postgres", query: str = "") -> str:
    return server.tcp_url(database, query, user=f"issuer:{SECRET}")


@every_command
def test_a_refused_connection(say: Say, command: str) -> None:
    port = free_port()
    output = say(command, f"postgresql://issuer:{SECRET}@127.0.0.1:{port}/gate")
    assert f"127.0.0.1:{port} refuses connections. Check that it runs" in output


@every_command
def test_the_failure_of_each_host_is_reported(say: Say, command: str) -> None:
    one, other = free_port(), free_port()
    url = f"postgresql://issuer:{SECRET}@127.0.0.1:{one},127.0.0.1:{other}/gate"
    output = say(command, url)
    for port in (one, other):
        assert f"127.0.0.1:{port} refuses connections" in output


@every_command
def test_a_wrong_host_name(say: Say, command: str) -> None:
    output = say(command, f"postgresql://issuer:{SECRET}@no-such-host.invalid/gate")
    assert "no-such-host.invalid:5432 cannot be found" in output
    assert "Check the name in the URL" in output


@every_command
def test_a_directory_without_a_socket(say: Say, command: str, tmp_path: Path) -> None:
    output = say(command, f"postgresql://issuer:{SECRET}@/gate?host={tmp_path}")
    assert f"{tmp_path} (unix socket, port 5432) has no socket there" in output


@pytest.mark.postgres
@every_command
def test_a_wrong_password(say: Say, command: str, server: PostgresServer) -> None:
    output = say(command, url_to(server))
    assert f"PostgreSQL at 127.0.0.1:{server.port} refuses the user" in output
    assert "Check user and password" in output


@pytest.mark.postgres
@every_command
def test_a_missing_database(say: Say, command: str, server: PostgresServer) -> None:
    output = say(command, server.tcp_url("none"))
    assert 'database "none" does not exist' in output
    assert "CREATE DATABASE" in output
    assert "python -m issuer migrate" in output


@pytest.mark.postgres
@every_command
def test_tls_that_the_server_does_not_speak(
    say: Say, command: str, server: PostgresServer
) -> None:
    output = say(command, server.tcp_url("postgres", "?sslmode=require"))
    assert "has no TLS. Switch ssl on there" in output


@pytest.mark.postgres
@pytest.mark.parametrize("command", ["serve", "revoke"])
def test_a_database_without_tables(
    say: Say, command: str, server: PostgresServer
) -> None:
    output = say(command, server.tcp_url(server.create_database()))
    assert f"127.0.0.1:{server.port} is at revision none" in output
    assert "run `python -m issuer migrate` first" in output


@pytest.mark.postgres
@every_command
def test_a_user_without_rights(say: Say, command: str, server: PostgresServer) -> None:
    name = server.create_database()
    migrations.upgrade(server.tcp_url(name))
    server.run_sql("CREATE USER guest", database=name)
    if command == "migrate":
        server.run_sql("UPDATE alembic_version SET version_num = '0007'", database=name)
    try:
        url = f"postgresql://guest@/{name}?host={server.socket_directory}"
        output = say(command, f"{url}&port={server.port}")
        assert "GRANT the rights" in output
    finally:
        server.drop_database(name)
        server.run_sql("DROP USER guest")


@pytest.mark.parametrize("folder", ["", "none/"], ids=["no-file", "no-directory"])
def test_a_command_on_a_sqlite_file_that_is_not_there(
    say: Say, folder: str, tmp_path: Path
) -> None:
    """And none is made: the migrations do that."""
    path = tmp_path / f"{folder}issuer.db"
    output = say("revoke", f"sqlite+aiosqlite:///{path}")
    assert f"SQLite file {path} is not there" in output
    assert "python -m issuer migrate" in output
    assert not path.exists()


@pytest.mark.parametrize("command", ["serve", "migrate"])
@pytest.mark.parametrize("folder", ["", "none/"], ids=["directory", "parent"])
def test_a_sqlite_file_in_an_unwritable_directory(
    say: Say, command: str, folder: str
) -> None:
    with small_disk("4m") as disk:
        subprocess.run(["mount", "-o", "remount,ro", str(disk)], check=True)
        output = say(command, f"sqlite+aiosqlite:///{disk}/{folder}issuer.db")
        if folder:
            assert f"the directory {disk}/none cannot be made: Read-only" in output
        else:
            assert f"SQLite file {disk}/issuer.db cannot be opened" in output


@every_command
def test_a_sqlite_file_that_is_damaged(say: Say, command: str, tmp_path: Path) -> None:
    path = tmp_path / "issuer.db"
    path.write_bytes(b"no database at all" * 400)
    assert f"{path} is damaged" in say(command, f"sqlite+aiosqlite:///{path}")


async def test_a_newer_schema_is_used_and_logged(
    database_url: str, caplog: pytest.LogCaptureFixture
) -> None:
    """A newer program's migrations keep this one working, as in a rolling upgrade."""
    caplog.set_level(logging.INFO)
    async with running_issuer(make_settings(database_url)) as issuer:
        async with issuer.database.write() as db:
            connection = await db.connection()
            await connection.exec_driver_sql(
                "UPDATE alembic_version SET version_num = '9999'"
            )
        await migrations.require_current_schema(issuer.database)
    (record,) = (r for r in caplog.records if r.getMessage() == "schema.newer")
    assert record.fields["found"] == "9999"


async def test_the_readiness_is_logged_when_it_changes(
    sqlite_url: str, caplog: pytest.LogCaptureFixture
) -> None:
    """Once, and not with each probe; its reason is the operator's next step."""
    caplog.set_level(logging.INFO)
    path = Path(name_of(sqlite_url))
    async with running_issuer(make_settings(sqlite_url)) as issuer:
        await issuer.issuer.keys.store.ensure_active()
        assert (await issuer.operators.get("/readyz")).status_code == 200
        path.write_bytes(b"no database at all" * 400)
        for end in ("-wal", "-shm"):
            path.with_name(path.name + end).unlink(missing_ok=True)
        # Those that were open still have the pages of before.
        await issuer.database.close()
        for _ in range(8):
            answer = await issuer.operators.get("/readyz")
            assert f"{path} is damaged" in answer.json()["reason"]
    lost = [r.fields for r in caplog.records if r.getMessage() == "readiness.lost"]
    # Also once the breaker keeps it from being asked.
    assert len(lost) == 1
    assert lost[0]["reason"].startswith(f"ISSUER_DATABASE_URL: SQLite file {path} ")
