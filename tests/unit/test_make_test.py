"""`make test` runs both of its parts, also when the first fails (issue 9)."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
#: Notes its arguments, and fails for the part that the environment names.
PYTEST = """#!/bin/sh
echo "$*" >>"$NOTES"
case "$*" in
    *'not alone'*) exit "$TOGETHER" ;;
    *) exit "$ALONE" ;;
esac
"""


def make(
    tmp_path: Path, target: str, *, together: int = 0, alone: int = 0
) -> tuple[subprocess.CompletedProcess[str], list[str]]:
    """Run a target with a pytest of ours; return what came of it, and pytest's
    arguments.
    """
    program = tmp_path / "venv/bin/pytest"
    program.parent.mkdir(parents=True)
    program.write_text(PYTEST)
    program.chmod(0o755)
    (program.parents[1] / ".ready").touch()
    notes, venv = tmp_path / "notes", tmp_path / "venv"
    done = subprocess.run(
        # -o: this environment is none, and must not be set up.
        ["make", "-o", str(venv / ".ready"), f"VENV={venv}", target],
        cwd=ROOT,
        env={
            "PATH": "/usr/bin:/bin",
            "NOTES": str(notes),
            "TOGETHER": str(together),
            "ALONE": str(alone),
        },
        capture_output=True,
        text=True,
        check=False,
    )
    return done, notes.read_text().splitlines()


@pytest.mark.parametrize(("together", "alone"), [(0, 0), (1, 0), (0, 1), (1, 1)])
def test_both_parts_run_and_either_ones_failure_is_the_result(
    tmp_path: Path, together: int, alone: int
) -> None:
    done, runs = make(tmp_path, "test", together=together, alone=alone)
    assert [run.endswith("-m alone") for run in runs] == [False, True]
    assert (done.returncode == 0) is (together == alone == 0)
    shown = f"side by side: exit code {together}; alone: exit code {alone}"
    assert shown in done.stdout


def test_proofs_are_made_whole(tmp_path: Path) -> None:
    done, (run,) = make(tmp_path, "proof")
    assert done.returncode == 0, done.stderr
    assert "-m proof --proof-scale=20" in run
