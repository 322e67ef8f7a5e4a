"""`python -m issuer check` finds each fault, says what to do, and writes nothing."""

from __future__ import annotations

import hashlib
import sqlite3
import time
from contextlib import closing
from pathlib import Path

import pytest

from issuer import migrations
from issuer.commands.main import main
from issuer.settings.database_url import parse_postgres_url
from tests.support.checked import CheckDesk
from tests.support.issuer_harness import FEED_TOKEN, key_environment
from tests.support.postgres import PostgresServer
from tests.support.processes import free_port

OTHER = "CQkJ" * 10 + "CQk"


@pytest.fixture
def base(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> CheckDesk:
    """Good settings, with a database that is not there."""
    monkeypatch.chdir(tmp_path)
    env = {
        "ISSUER_URL": "https://issuer.test",
        "ISSUER_AUDIENCE": "api",
        "ISSUER_FEED_TOKEN": FEED_TOKEN,
        "ISSUER_DATABASE_URL": f"sqlite+aiosqlite:///{tmp_path}/issuer.db",
        "ISSUER_BIND": f"127.0.0.1:{free_port()}",
        "ISSUER_ADMIN_BIND": f"127.0.0.1:{free_port()}",
        "ISSUER_MAX_CONNECTIONS": "100",
        **key_environment(),
    }
    return CheckDesk(main, env, monkeypatch, capsys)


@pytest.fixture
def desk(base: CheckDesk, sqlite_url: str, tmp_path: Path) -> CheckDesk:
    """A migrated SQLite database, of which no byte may change."""
    base.env["ISSUER_DATABASE_URL"] = sqlite_url
    path = tmp_path / "issuer.db"
    path.chmod(0o600)
    return base


def digests(folder: Path) -> dict[str, str]:
    return {
        path.name: hashlib.sha256(path.read_bytes()).hexdigest()
        for path in folder.iterdir()
    }


def change(folder: Path, *statements: str) -> None:
    with closing(sqlite3.connect(folder / "issuer.db")) as db:
        for statement in statements:
            db.execute(statement)
        db.commit()


def test_nothing_is_found_where_nothing_is_wrong(
    desk: CheckDesk, tmp_path: Path
) -> None:
    before = digests(tmp_path)
    checked = desk.check("--strict")
    assert (checked.status, checked.bad()) == (0, {})
    assert checked.levels("keys.opened") == ["ok"]
    assert digests(tmp_path) == before
    for secret in (FEED_TOKEN, *key_environment().values()):
        assert secret.rpartition(":")[2] not in checked.text


def test_a_backup_without_a_write_ahead_log_is_left_as_it_is(
    desk: CheckDesk, tmp_path: Path
) -> None:
    """A start would turn the log on, which changes the file."""
    change(tmp_path, "PRAGMA journal_mode=DELETE")
    before = digests(tmp_path)
    assert desk.check("--strict").status == 0
    assert digests(tmp_path) == before


def test_a_database_that_is_not_there_is_not_made(
    base: CheckDesk, tmp_path: Path
) -> None:
    checked = base.check()
    assert (checked.status, set(checked.bad())) == (0, {"database.file"})
    away = base.check(ISSUER_DATABASE_URL="sqlite+aiosqlite:////dev/null/x.db")
    assert away.levels("files.directory") == ["error"]
    assert list(tmp_path.iterdir()) == []


def test_a_database_that_lacks_migrations_is_found(
    desk: CheckDesk, tmp_path: Path
) -> None:
    known = migrations.list_revisions()
    change(tmp_path, f"UPDATE alembic_version SET version_num = '{known[-3]}'")
    checked = desk.check()
    assert checked.levels("database.schema") == ["error"]
    assert "2 migrations are missing" in checked.text
    change(tmp_path, "UPDATE alembic_version SET version_num = '9999'")
    newer = desk.check()
    assert (newer.status, set(newer.bad())) == (0, {"database.schema"})
    change(tmp_path, "DROP TABLE alembic_version")
    assert "revision none" in desk.check().bad()["database.schema"]


def test_a_file_that_is_no_database_is_found(desk: CheckDesk, tmp_path: Path) -> None:
    (tmp_path / "issuer.db").write_bytes(b"text that is no database" * 100)
    before = digests(tmp_path)
    checked = desk.check()
    assert (checked.status, set(checked.bad())) == (1, {"database.reachable"})
    assert digests(tmp_path) == before


def test_a_database_that_others_can_read_is_found(
    desk: CheckDesk, tmp_path: Path
) -> None:
    (tmp_path / "issuer.db").chmod(0o644)
    checked = desk.check("--offline")
    assert checked.levels("files.database") == ["error"]


def test_keys_that_are_not_those_of_before_are_found(desk: CheckDesk) -> None:
    changed = {"ISSUER_KEY_ENCRYPTION_KEYS": f"k1:{OTHER}"}
    checked = desk.check(**changed)
    assert checked.status == 1
    assert checked.levels("keys.opened") == ["error"]
    assert checked.bad()["keys.stored"].startswith("ISSUER_KEY_ENCRYPTION_KEYS: ")
    assert OTHER not in checked.text
    lost = desk.check(ISSUER_KEY_ENCRYPTION_KEYS=f"k2:{OTHER}")
    assert lost.levels("keys.opened") == ["error"]


def test_a_pepper_that_rows_need_is_found(desk: CheckDesk, tmp_path: Path) -> None:
    hashed = "ghp1$gone$rest"
    change(
        tmp_path,
        "INSERT INTO users (id, username, password_hash, generation, version, "
        "created_at, updated_at, password_changed_at) "
        f"VALUES ('u', 'alice', '{hashed}', 0, 1, 1, 1, 1)",
    )
    bad = desk.check().bad()
    assert bad["keys.stored"].startswith("ISSUER_PASSWORD_PEPPERS: id gone is missing")


def test_a_missing_and_an_overdue_key_are_found(
    desk: CheckDesk, tmp_path: Path
) -> None:
    late = desk.check(ISSUER_KEY_ROTATION_INTERVAL="3600").bad()
    assert "should have been replaced" in late["keys.rotation"]
    change(tmp_path, "UPDATE signing_keys SET state = 'next'")
    checked = desk.check()
    assert checked.levels("keys.active") == ["warning"]
    change(
        tmp_path,
        "UPDATE signing_keys SET state = 'active'",
        "INSERT INTO signing_keys (kid, state, public_jwk, kek_id, created_at) "
        f"VALUES ('b', 'next', '{{}}', 'k1', {int(time.time()) - 90_000})",
    )
    assert "does not sign yet" in desk.check().bad()["keys.rotation"]


@pytest.mark.parametrize(("seconds", "level"), [("600", "ok"), ("599", "warning")])
def test_a_key_that_signs_before_caches_have_it_is_found(
    desk: CheckDesk, seconds: str, level: str
) -> None:
    checked = desk.check("--offline", ISSUER_KEY_PUBLISH_AHEAD=seconds)
    assert checked.levels("keys.publish_ahead") == [level]
    assert checked.status == 0
    if level == "warning":
        assert "write ISSUER_KEY_PUBLISH_AHEAD=600 or more" in checked.text


def test_the_settings_file_of_the_option_is_checked(
    desk: CheckDesk, tmp_path: Path
) -> None:
    file = tmp_path / "issuer.env"
    file.write_text("".join(f"{name}={text}\n" for name, text in desk.env.items()))
    file.chmod(0o640)
    desk.env.clear()
    assert desk.check("--env-file", str(file)).status == 0
    file.chmod(0o666)
    assert desk.check("--env-file", str(file)).levels("files.secret") == ["error"]
    gone = desk.check("--env-file", str(tmp_path / "gone"))
    (finding,) = gone.findings
    assert (finding["concerns"], gone.status) == ("--env-file", 1)


# --- PostgreSQL ---------------------------------------------------------------------


@pytest.fixture
def served(base: CheckDesk, postgres_url: str) -> CheckDesk:
    base.env["ISSUER_DATABASE_URL"] = postgres_url
    return base


@pytest.mark.postgres
def test_a_good_server_is_found_good(served: CheckDesk) -> None:
    checked = served.check(ISSUER_LISTEN_URL=served.env["ISSUER_DATABASE_URL"])
    assert (checked.status, checked.bad()) == (0, {})
    for check in ("version", "clock", "connections", "schema", "listening"):
        assert checked.levels(f"database.{check}") == ["ok"], check
    assert "PostgreSQL" in checked.text
    assert "database" not in str(served.check("--offline").levels("database.schema"))


@pytest.mark.postgres
def test_more_connections_than_the_server_allows_are_found(served: CheckDesk) -> None:
    bad = served.check(ISSUER_WORKERS="8", ISSUER_DATABASE_POOL_SIZE="200").bad()
    assert bad["database.connections"].startswith(
        "ISSUER_DATABASE_POOL_SIZE: up to 1608 connections of this issuer, and "
    )


@pytest.mark.postgres
def test_a_database_that_takes_no_writes_is_found(
    served: CheckDesk, postgres: PostgresServer
) -> None:
    name = parse_postgres_url(served.env["ISSUER_DATABASE_URL"]).database
    postgres.run_sql(f'ALTER DATABASE "{name}" SET default_transaction_read_only = on')
    assert served.check().levels("database.writable") == ["error"]


@pytest.mark.postgres
def test_a_server_that_is_away_is_found_without_its_password(
    served: CheckDesk,
) -> None:
    url = f"postgresql://issuer:hushhush@127.0.0.1:{free_port()}/issuer"
    checked = served.check(ISSUER_DATABASE_URL=url, ISSUER_LISTEN_URL=url)
    assert checked.status == 1
    assert checked.levels("database.reachable") == ["error"]
    assert "hushhush" not in checked.text
