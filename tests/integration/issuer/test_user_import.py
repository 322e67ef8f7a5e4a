"""`python -m issuer import-users`: accepted rows, refused rows, and a second run."""

from __future__ import annotations

import asyncio
import json
import os
import sqlite3
import stat
import subprocess
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import bcrypt
import pytest
from sqlalchemy import select

from issuer.accounts.user_rows import UserRows
from issuer.acts import Caller
from issuer.storage.tables.users import User
from tests.support.imported import HASHES, IMPORTED_PASSWORD
from tests.support.issuer_commands import IssuerCommands
from tests.support.issuer_harness import IssuerHarness, key_environment
from tests.support.issuer_story import PASSWORD, log_in, post_login, read_audit

ROOT = Path(__file__).resolve().parents[3]
Import = Callable[..., subprocess.CompletedProcess[str]]
CSV = f"""\
username,roles,password
alice,admin,{PASSWORD}
bob,,
carol,nobody,{PASSWORD}
dave,admin,short
"e\u202eve",,
frank
Alice,admin,{PASSWORD}
"""


@pytest.fixture
def import_users(commands: IssuerCommands, tmp_path: Path, sqlite_url: str) -> Import:
    """Runs the command on a database that has the role `admin`."""
    kept = {n: v for n, v in os.environ.items() if not n.startswith("ISSUER_")}
    env = kept | {"PYTHONPATH": str(ROOT), "ISSUER_DATABASE_URL": sqlite_url}

    def issuer(*arguments: str, given: str = "") -> subprocess.CompletedProcess[str]:
        return commands.run(*arguments, env=env, cwd=tmp_path, given=given)

    lines = issuer("generate-secrets").stdout.splitlines()
    env |= dict(line.split("=", 1) for line in lines if line.startswith("ISSUER_"))
    env |= key_environment()
    env |= {"ISSUER_URL": "https://issuer.test", "ISSUER_AUDIENCE": "api"}
    env |= {"ISSUER_BCRYPT_COST": "10"}
    assert issuer("create-admin", "root", given=f"{PASSWORD}\n").returncode == 0

    def run(*arguments: str, given: str = "", status: int = 0):
        done = issuer("import-users", *arguments, given=given)
        assert done.returncode == status, done.stdout + done.stderr
        assert "Traceback" not in done.stderr
        return done

    return run


def read_names(tmp_path: Path) -> list[str]:
    with closing(sqlite3.connect(tmp_path / "issuer.db")) as db:
        return [name for (name,) in db.execute("SELECT username FROM users")]


def test_rows_are_imported_and_the_refused_are_kept_to_be_mended(
    import_users: Import, tmp_path: Path
) -> None:
    """R30, R35, R36."""
    path = tmp_path / "people.csv"
    path.write_text(CSV)
    done = import_users("people.csv", status=1)
    assert "Made 2; already there 1; refused 4." in done.stdout
    assert sorted(read_names(tmp_path)) == ["alice", "bob", "root"]
    shown = [line for line in done.stderr.splitlines() if line.startswith("line ")]
    assert [line.rpartition(":")[0] for line in shown] == [
        "line 4: roles",
        "line 5: password",
        "line 6: username",
        "line 7: row",
    ]
    # Not a terminal: no bar; and nothing that was read is repeated.
    assert "row/s" not in done.stderr
    assert "short" not in done.stderr + done.stdout

    refused = tmp_path / "people.csv.refused"
    assert stat.S_IMODE(refused.stat().st_mode) == 0o600
    lines = CSV.splitlines(keepends=True)
    assert refused.read_text() == "".join([lines[0], *lines[3:7]])
    mended = refused.read_text().replace("nobody", "admin").replace("short", PASSWORD)
    refused.write_text(mended.replace("\u202e", "").replace("frank\n", "frank,,\n"))
    done = import_users("people.csv.refused")
    assert "Made 4; already there 0; refused 0." in done.stdout


def test_a_second_run_does_the_rest_and_no_more(
    import_users: Import, tmp_path: Path
) -> None:
    path = tmp_path / "people.jsonl"
    rows = [{"username": f"user{n}", "roles": ["admin"]} for n in range(120)]
    path.write_text("\n".join(map(json.dumps, rows[:70])))
    assert "Made 70;" in import_users("people.jsonl").stdout
    path.write_text("\n".join(map(json.dumps, rows)))
    assert (
        "Made 50; already there 70; refused 0." in import_users("people.jsonl").stdout
    )
    assert len(read_names(tmp_path)) == 121


def test_a_dry_run_reports_the_changes_and_makes_none(
    import_users: Import, tmp_path: Path
) -> None:
    (tmp_path / "people.csv").write_text(CSV)
    done = import_users("people.csv", "--dry-run", status=1)
    assert "Would make 2; already there 1; refused 4." in done.stdout
    assert read_names(tmp_path) == ["root"]
    assert not (tmp_path / "people.csv.refused").exists()


def test_programs_read_the_outcome_as_json(
    import_users: Import, tmp_path: Path
) -> None:
    shown = '{"username":"alice"}\n{"username":7}\n'
    done = import_users("-", "--json", "--refused", "bad.jsonl", given=shown, status=1)
    refused, counts = map(json.loads, done.stdout.splitlines())
    assert refused["refused"]["line"] == 2
    assert refused["refused"]["field"] == "username"
    assert counts == {
        "dry_run": False,
        "created": 1,
        "already": 0,
        "refused": 1,
        "refused_file": "bad.jsonl",
    }
    assert (tmp_path / "bad.jsonl").read_text() == '{"username":7}\n'


def test_a_file_of_refused_rows_is_never_written_over(
    import_users: Import, tmp_path: Path
) -> None:
    (tmp_path / "people.csv").write_text("username\na\u202eb\n")
    for name in ("people.csv.refused", "people.csv.refused-2"):
        done = import_users("people.csv", status=1)
        assert done.stdout.rstrip().endswith(f"stand in {name}.")
        (tmp_path / name).write_text("half mended")
    import_users("people.csv", "--refused", "people.csv.refused", status=1)
    assert (tmp_path / "people.csv.refused").read_text() == "half mended"


def test_a_missing_file_is_reported(import_users: Import) -> None:
    assert "nowhere.csv" in import_users("nowhere.csv", status=1).stderr


# --- in process, on both databases --------------------------------------------------


async def import_lines(issuer: IssuerHarness, text: str, *, is_trial: bool = False):
    rows = UserRows(text.encode().splitlines(keepends=True))
    run = issuer.issuer.accounts.user_import.run(
        rows, actor="system", caller=Caller(), is_trial=is_trial
    )
    return [outcome async for outcome in run]


async def test_imported_people_log_in_and_those_without_a_password_do_not(
    issuer: IssuerHarness,
) -> None:
    """R32: an account without a password is refused as every other."""
    roles = issuer.issuer.roles.roles
    await roles.create("clerk", ["orders:read"], "", actor="system", caller=Caller())
    foreign = bcrypt.hashpw(PASSWORD.encode(), bcrypt.gensalt(4)).decode()
    (outcome,) = await import_lines(
        issuer,
        "username,roles,password,password_hash\n"
        f"alice,clerk,{PASSWORD},\n"
        f"bob,,,{foreign}\n"
        "carol,clerk,,\n",
    )
    assert (outcome.created, outcome.refused) == (3, ())
    assert (await log_in(issuer)).claims["scope"] == "orders:read"
    # The second one runs on the hash that the first one made of it.
    for _ in range(2):
        await log_in(issuer, "bob")
    assert (await post_login(issuer, "carol", "")).status_code == 401
    assert (await post_login(issuer, "carol")).status_code == 401
    carol = await issuer.issuer.accounts.users.find("carol")
    assert (carol.has_password, carol.roles) == (False, ("clerk",))
    events = await read_audit(issuer, "user.created")
    assert [event["facts"]["source"] for event in events] == ["import"] * 3


async def test_hashes_of_every_other_system_log_in_and_are_replaced_at_once(
    issuer: IssuerHarness,
) -> None:
    """R31: after the first login each is a hash of ours; in CSV one is quoted."""
    rows = "".join(f'{name},"{text}"\n' for name, text in HASHES.items())
    (outcome,) = await import_lines(issuer, f"username,password_hash\n{rows}")
    assert (outcome.created, outcome.refused) == (len(HASHES), ())
    for name in HASHES:
        refused = await post_login(issuer, name, PASSWORD)
        assert refused.status_code == 401
        for _ in range(2):
            await log_in(issuer, name, IMPORTED_PASSWORD)
    async with issuer.database.read() as db:
        stored = (await db.scalars(select(User.password_hash))).all()
    assert {text[:6] for text in stored} == {"ghp1$p"}


@pytest.mark.parametrize("is_trial", [False, True])
async def test_an_account_that_is_there_is_left_as_it_is(
    issuer: IssuerHarness, is_trial: bool
) -> None:
    roles = issuer.issuer.roles.roles
    await roles.create("clerk", [], "", actor="system", caller=Caller())
    before = await issuer.create_user("alice", PASSWORD)
    (outcome,) = await import_lines(
        issuer,
        "username,roles\nalice,\nALICE,clerk\nbob,clerk\nbob,clerk\nbob,\n",
        is_trial=is_trial,
    )
    assert (outcome.created, outcome.already) == (1, 2)
    assert [row.line for row in outcome.refused] == [3, 6]
    assert {row.field for row in outcome.refused} == {"username"}
    assert await issuer.issuer.accounts.users.find("alice") == before


async def test_two_imports_at_once_make_each_account_once(
    issuer: IssuerHarness,
) -> None:
    text = "username\n" + "".join(f"user{n}\n" for n in range(60))
    runs = await asyncio.gather(*(import_lines(issuer, text) for _ in range(3)))
    assert sum(outcome.created for run in runs for outcome in run) == 60
    assert sum(outcome.already for run in runs for outcome in run) == 120
