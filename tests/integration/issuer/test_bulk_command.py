"""`python -m issuer revoke-many`, as an operator or a script runs it."""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.support.issuer_commands import IssuerCommands
from tests.support.issuer_harness import key_environment, make_settings, running_issuer
from tests.support.issuer_story import PASSWORD, is_accepted, log_in, read_feed

ROOT = Path(__file__).resolve().parents[3]
Run = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture
def run(commands: IssuerCommands, database_url: str, tmp_path: Path) -> Run:
    """Run the command on a migrated database; it must end with `status`."""
    kept = {n: v for n, v in os.environ.items() if not n.startswith("ISSUER_")}
    env = kept | {
        "PYTHONPATH": str(ROOT),
        "ISSUER_URL": "https://issuer.test",
        "ISSUER_AUDIENCE": "api",
        "ISSUER_DATABASE_URL": database_url,
        "ISSUER_FEED_TOKEN": "x" * 32,
        **key_environment(),
    }

    def run(*options: str, given: str = "", status: int = 0):
        done = commands.run("revoke-many", *options, env=env, cwd=tmp_path, given=given)
        assert done.returncode == status, done.stdout + done.stderr
        assert "Traceback" not in done.stderr
        return done

    return run


def test_a_file_is_revoked_and_bad_rows_are_reported_by_line(
    run: Run, tmp_path: Path
) -> None:
    path = tmp_path / "rows.csv"
    path.write_text("kind,key\nsid,s1\ncookie,c\njti,j1\nuser,nobody\n")
    trial = run("--file", str(path), "--dry-run", status=1)
    assert "Would revoke 2; already revoked 0; refused 2." in trial.stdout
    done = run("--file", str(path), status=1)
    assert "Revoked 2; already revoked 0; refused 2. Position 2" in done.stdout
    assert "line 3: kind: must be one of jti" in done.stderr
    assert "line 5: key: there is no such user" in done.stderr
    assert "%" not in done.stderr, "no progress bar where there is no terminal"


def test_a_script_reads_json_and_gives_json_lines_on_standard_input(run: Run) -> None:
    rows = "".join(f'{{"kind":"sid","key":"s{n}"}}\n' for n in range(1_200))
    done = run("--file", "-", "--json", given=rows)
    counts = {"dry_run": False, "revoked": 1_200, "already": 0, "refused": 0}
    assert json.loads(done.stdout) == counts | {"position": 1_200}
    again = run("--file", "-", "--json", given=rows + "{\n", status=1)
    refused, counted = map(json.loads, again.stdout.splitlines())
    assert refused["refused"]["line"] == 1_201
    assert (counted["already"], counted["position"]) == (1_200, 1_200)


async def test_sessions_end_by_filter_once_it_is_confirmed(
    run: Run, database_url: str
) -> None:
    async with running_issuer(make_settings(database_url)) as issuer:
        await issuer.create_user("alice", PASSWORD)
        old = await log_in(issuer)
        issuer.clock.advance(100)
        young = await log_in(issuer)
        condition = ("--started-before", "2026-11-22T13:21:00Z")
        # In a thread: a loop that stands still may hold SQLite's lock meanwhile.
        asked = await asyncio.to_thread(run, *condition, status=1)
        assert "1 sessions would end: add --yes" in asked.stderr
        trial = await asyncio.to_thread(run, *condition, "--dry-run")
        assert "Would revoke 1;" in trial.stdout
        assert await read_feed(issuer) == []
        # The command's clock is the machine's: the sessions live there, too.
        chosen = (*condition, "--address", "192.0.2.0/24")
        done = await asyncio.to_thread(run, *chosen, "--yes")
        assert "Revoked 1; already revoked 0; refused 0. Position 1" in done.stdout
        assert not await is_accepted(issuer, old)
        assert await is_accepted(issuer, young)


@pytest.mark.parametrize(
    "options",
    [
        (),
        ("--file", "x", "--role", "y"),
        ("--file", "/nowhere/rows.csv"),
        ("--started-before", "yesterday"),
        ("--started-before", "2026-11-22T13:00:00"),
        ("--address", "somewhere"),
    ],
    ids=str,
)
def test_nonsensical_commands_are_refused_with_an_explanation(
    run: Run, options: tuple[str, ...]
) -> None:
    assert run(*options, status=1).stderr.strip()
