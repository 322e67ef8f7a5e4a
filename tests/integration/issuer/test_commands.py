"""`python -m issuer`: every command as an operator runs it, in its own process.

Started anew are some commands that need nothing before them; the others are forked.
"""

from __future__ import annotations

import json
import os
import shutil
import sqlite3
import subprocess
import sys
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import pytest

from tests.support.issuer_commands import IssuerCommands

ROOT = Path(__file__).resolve().parents[3]
PASSWORD = "correct horse battery"
Run = Callable[..., subprocess.CompletedProcess[str]]


def run_issuer(
    *command: str, env: dict[str, str], given: str = "", cwd: Path
) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "issuer", *command],
        env=env,
        cwd=cwd,
        input=given,
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.fixture(scope="module")
def plain_env() -> dict[str, str]:
    """An environment without any setting of ours."""
    kept = {n: v for n, v in os.environ.items() if not n.startswith("ISSUER_")}
    return kept | {"PYTHONPATH": str(ROOT)}


@pytest.fixture(scope="module")
def secret_lines(
    plain_env: dict[str, str], tmp_path_factory: pytest.TempPathFactory
) -> str:
    """What `generate-secrets` prints, of which every test's issuer has its secrets."""
    folder = tmp_path_factory.mktemp("secrets")
    made = run_issuer("generate-secrets", env=plain_env, cwd=folder)
    assert made.returncode == 0, made.stderr
    return made.stdout


def make_env(
    plain_env: dict[str, str], secret_lines: str, folder: Path
) -> dict[str, str]:
    """Return the least that must be set, for a database in the folder."""
    pairs = (line.split("=", 1) for line in secret_lines.splitlines())
    return plain_env | {
        **{name: value for name, value in pairs if name.startswith("ISSUER_")},
        "ISSUER_URL": "https://issuer.test",
        "ISSUER_AUDIENCE": "api",
        "ISSUER_BCRYPT_COST": "10",
        "ISSUER_DATABASE_URL": f"sqlite+aiosqlite:///{folder}/new/issuer.db",
    }


@pytest.fixture
def env(plain_env: dict[str, str], secret_lines: str, tmp_path: Path) -> dict[str, str]:
    """The settings of one test, which may change them."""
    return make_env(plain_env, secret_lines, tmp_path)


@pytest.fixture(scope="module")
def migrated(
    plain_env: dict[str, str],
    secret_lines: str,
    tmp_path_factory: pytest.TempPathFactory,
) -> Path:
    """The directory that `migrate` made; each test gets a copy."""
    folder = tmp_path_factory.mktemp("migrated")
    env = make_env(plain_env, secret_lines, folder)
    done = run_issuer("migrate", env=env, cwd=folder)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "Traceback" not in done.stderr
    return folder / "new"


@pytest.fixture
def run(
    commands: IssuerCommands, env: dict[str, str], migrated: Path, tmp_path: Path
) -> Run:
    """Run a command on a migrated database; it must end with status 0."""

    def run(*command: str, given: str = "", status: int = 0):
        done = commands.run(*command, env=env, given=given, cwd=tmp_path)
        assert done.returncode == status, done.stdout + done.stderr
        assert "Traceback" not in done.stderr
        return done

    shutil.copytree(migrated, tmp_path / "new")
    return run


def test_the_secrets_are_lines_for_a_settings_file(env: dict[str, str]) -> None:
    """Fresh each time, and enough with two names more."""
    for name in ("KEY_ENCRYPTION_KEYS", "PASSWORD_PEPPERS", "REFRESH_KEYS"):
        assert env[f"ISSUER_{name}"].startswith("k1:")
    assert len(env["ISSUER_FEED_TOKEN"]) >= 32


def test_bad_settings_are_one_line_each_and_status_2(
    env: dict[str, str], tmp_path: Path
) -> None:
    """R35: the line names the setting and the rule, never the value."""
    bad = env | {"ISSUER_FEED_TOKEN": "hush", "ISSUER_ACCESS_TTL": "never"}
    del bad["ISSUER_URL"]
    done = run_issuer("settings", env=bad, cwd=tmp_path)
    assert done.returncode == 2
    lines = done.stderr.splitlines()
    assert sorted(line.partition(":")[0] for line in lines) == [
        "ISSUER_ACCESS_TTL",
        "ISSUER_FEED_TOKEN",
        "ISSUER_URL",
    ]
    assert "hush" not in done.stderr


def test_the_settings_are_shown_without_secrets(run: Run, env: dict[str, str]) -> None:
    """R35."""
    shown = run("settings").stdout
    assert "ISSUER_ACCESS_TTL=600" in shown.splitlines()
    assert "ISSUER_AUDIENCE=api" in shown.splitlines()
    for name in ("FEED_TOKEN", "KEY_ENCRYPTION_KEYS", "PASSWORD_PEPPERS"):
        secret = env[f"ISSUER_{name}"].rpartition(":")[2]
        assert secret not in shown


def test_the_password_of_the_database_is_not_shown(
    env: dict[str, str], tmp_path: Path
) -> None:
    """R35."""
    url = "postgresql+asyncpg://issuer:hushhush@db.test/issuer"
    changed = env | {"ISSUER_DATABASE_URL": url}
    shown = run_issuer("settings", env=changed, cwd=tmp_path)
    assert "db.test" in shown.stdout
    assert "hushhush" not in shown.stdout


def test_a_command_on_an_unmigrated_database_names_the_remedy(
    env: dict[str, str], tmp_path: Path
) -> None:
    (tmp_path / "new").mkdir()
    done = run_issuer("revoke", "--jti", "x", env=env, cwd=tmp_path)
    assert done.returncode == 1
    assert "python -m issuer migrate" in done.stderr
    assert "Traceback" not in done.stderr


def test_an_administrator_is_made_with_the_password_on_standard_input(run: Run) -> None:
    run("create-admin", "Alice", "--password-stdin", given=f"{PASSWORD}\n")
    taken = run("create-admin", "ALICE", given=f"{PASSWORD}\n", status=1)
    assert "taken" in taken.stderr
    refused = run("create-admin", "bob", given="hunter2\n", status=1)
    assert "at least 15" in refused.stderr
    assert "hunter2" not in refused.stderr
    assert "password" in run("create-admin", "bob", status=1).stderr


def test_a_client_is_made_and_its_secret_printed_once(run: Run) -> None:
    lines = run("create-client", "demo", "--scope", "a b", "--scope", "c").stdout
    shown = dict(line.split("=", 1) for line in lines.splitlines())
    assert shown["CLIENT_ID"].startswith("gc_")
    assert shown["CLIENT_SECRET"].startswith("ghs_")
    made = json.loads(run("create-client", "demo", "--json").stdout)
    assert made.keys() == {"client_id", "client_secret"}
    run("revoke", "--client", shown["CLIENT_ID"])
    run("create-client", "demo", "--scope", 'a"b', status=1)


def test_everything_can_be_revoked(run: Run) -> None:
    """Each revocation tells its position in the feed."""
    run("create-admin", "alice", given=f"{PASSWORD}\n")
    for position, what in enumerate(
        (("--user", "ALICE"), ("--sid", "a-sid"), ("--jti", "a-jti")), 1
    ):
        assert f"position {position} " in run("revoke", *what).stdout
    for what in (
        ("--user", "nobody"),
        ("--client", "gc_none"),
        ("--kid", "none"),
        ("--sid", "x" * 257),
    ):
        assert run("revoke", *what, status=1).stderr
    assert "one of the arguments" in run("revoke", status=2).stderr


def test_a_new_epoch_is_begun_by_command(run: Run, tmp_path: Path) -> None:
    """After a restore that nothing in the database can tell."""

    def read_head() -> tuple[str, int]:
        with closing(sqlite3.connect(tmp_path / "new" / "issuer.db")) as db:
            row = db.execute("SELECT epoch, settled FROM feed_head").fetchone()
        return str(row[0]), int(row[1])

    before = read_head()
    assert before[1] == 1
    done = run("new-epoch")
    epoch, settled = read_head()
    assert (epoch != before[0], settled) == (True, 0)
    assert epoch in done.stdout
    assert "67 s" in done.stderr
    # It is this program's own change, not a restored database.
    run("revoke", "--jti", "a-jti")
    assert read_head()[0] == epoch


def test_keys_are_rotated_ahead_of_time_or_at_once(run: Run) -> None:
    assert "published" in run("rotate-keys").stdout
    assert "already" in run("rotate-keys").stdout
    assert "signs now" in run("rotate-keys", "--now").stdout


def test_the_active_key_can_be_revoked_and_another_takes_over(
    run: Run, tmp_path: Path
) -> None:
    run("rotate-keys", "--now")
    (stolen,) = active_keys(tmp_path)
    assert "position 1 " in run("revoke", "--kid", stolen).stdout
    (active,) = active_keys(tmp_path)
    assert active != stolen


def active_keys(tmp_path: Path) -> list[str]:
    with closing(sqlite3.connect(tmp_path / "new" / "issuer.db")) as db:
        rows = db.execute("SELECT kid FROM signing_keys WHERE state = 'active'")
        return [kid for (kid,) in rows]


def test_audit_verification_names_tampered_events(run: Run, tmp_path: Path) -> None:
    run("create-admin", "alice", given=PASSWORD)
    run("create-client", "orders")
    head = run("audit", "head").stdout.strip()
    shown = run("audit", "verify", "--expect", head).stdout
    assert shown.splitlines() == ["2 events in order; not linked yet: 0.", head]
    with closing(sqlite3.connect(tmp_path / "new" / "issuer.db")) as db:
        db.execute("DROP TRIGGER audit_events_no_update")
        db.execute("UPDATE audit_events SET actor = 'mallory' WHERE id = 2")
        db.commit()
    broken = run("audit", "verify", status=1)
    assert "event 2 (link 2): its seal does not fit" in broken.stderr


def test_old_audit_events_are_deleted_by_command_alone(run: Run) -> None:
    run("create-admin", "alice", given=PASSWORD)
    assert "Nothing is that old" in run("audit", "prune", "--before", "1").stdout
    pruned = run("audit", "prune", "--before", "9999-01-01T00:00:00Z").stdout
    assert pruned.startswith("Deleted up to ")
    run("audit", "verify")
    for wrong in (("prune", "--before", "soon"), ("verify", "--expect", "x")):
        run("audit", *wrong, status=1)


def test_stored_secrets_move_to_another_encryption_key(
    run: Run, env: dict[str, str], tmp_path: Path
) -> None:
    run("rotate-keys", "--now")
    old = env["ISSUER_KEY_ENCRYPTION_KEYS"]
    fresh = "k2:" + "AQEB" * 10 + "AQE"
    env["ISSUER_KEY_ENCRYPTION_KEYS"] = f"{fresh},{old}"
    assert "Under key k2 now: 1 more" in run("reencrypt-keys").stdout
    env["ISSUER_KEY_ENCRYPTION_KEYS"] = fresh
    run("rotate-keys", "--now")
    lost = run("audit", "verify", status=1)
    assert "ISSUER_KEY_ENCRYPTION_KEYS lacks id k1" in lost.stderr
    run("audit", "verify", "--retired-key", "k1")


def test_another_pepper_is_refused_before_anything_is_done(
    run: Run, env: dict[str, str], tmp_path: Path
) -> None:
    """The hash would be one that no login of the running issuer can check."""
    run("create-admin", "alice", given=PASSWORD)
    right = env["ISSUER_PASSWORD_PEPPERS"]
    env["ISSUER_PASSWORD_PEPPERS"] = "k1:" + "AQEB" * 10 + "AQE"
    for command in (("create-admin", "bob"), ("migrate",)):
        refused = run(*command, given=PASSWORD, status=1)
        assert refused.stderr.startswith("ISSUER_PASSWORD_PEPPERS: the key with id k1")
    assert (
        run_issuer(env=env, cwd=tmp_path)
        .stderr.splitlines()[-1]
        .startswith("ISSUER_PASSWORD_PEPPERS: the key with id k1 is")
    ), "it must not serve"
    env["ISSUER_PASSWORD_PEPPERS"] = right
    run("create-admin", "bob", given=PASSWORD)


def test_another_pepper_is_refused_before_a_start_migrates(
    run: Run, env: dict[str, str], tmp_path: Path
) -> None:
    """It may be another installation's database, and no migration can be taken back."""
    run("create-admin", "alice", given=PASSWORD)
    path = tmp_path / "new" / "issuer.db"
    with closing(sqlite3.connect(path)) as db:
        # As if this program's last migration had not run yet.
        db.execute("UPDATE alembic_version SET version_num = '0007'")
        db.commit()
    env["ISSUER_PASSWORD_PEPPERS"] = "k1:" + "AQEB" * 10 + "AQE"
    output = run_issuer(env=env, cwd=tmp_path).stderr.splitlines()[-1]
    assert output.startswith("ISSUER_PASSWORD_PEPPERS: the key with id k1 is")


def test_the_database_is_its_owner_s_alone(run: Run, tmp_path: Path) -> None:
    """R59: it holds hashes and sealed keys, and most systems have the umask 022."""
    run("create-admin", "alice", given=PASSWORD)
    files = list((tmp_path / "new").iterdir())
    assert {f.name for f in files} >= {"issuer.db", "issuer.db-witness"}
    assert {f.stat().st_mode & 0o777 for f in files} == {0o600}


def test_a_key_s_id_may_begin_with_a_dash(run: Run) -> None:
    """One in 64 does."""
    output = run("revoke", "--kid", "-" + "A" * 42, status=1).stderr
    assert "nothing under this name" in output


def test_a_token_instead_of_its_claim_is_reported(run: Run) -> None:
    output = run("revoke", "--jti", f"{'a' * 300}.b.c", status=1).stderr
    assert "give the claim of this name, not the token" in output


def test_the_help_teaches(plain_env: dict[str, str], tmp_path: Path) -> None:
    shown = run_issuer("--help", env=plain_env, cwd=tmp_path).stdout
    for word in (
        "migrate",
        "create-admin",
        "create-client",
        "rotate-keys",
        "import-users",
        "revoke",
        "generate-secrets",
        "settings",
        "ISSUER_URL",
        "ISSUER_AUDIENCE",
    ):
        assert word in shown
