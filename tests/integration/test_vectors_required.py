"""A clone without the foreign vectors passes; where they are expected, it fails (issue
9).
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.conformance.vectors import why_required

ROOT = Path(__file__).resolve().parents[2]
#: The files of the tree that the corpus tests need; the programs are installed ones.
PARTS = ("tests/conformance", "tests/support", "tests/conftest.py", "pyproject.toml")
SET_BY_CI = ("CI", "GATEHOUSE_REQUIRE_VECTORS", "GATEHOUSE_TEST_COMPILED")


@pytest.fixture
def clone(tmp_path: Path) -> Path:
    """A copy of the corpus tests in a folder with nothing beside it."""
    clone = tmp_path / "clone"
    for part in PARTS:
        source, target = ROOT / part, clone / part
        target.parent.mkdir(parents=True, exist_ok=True)
        if source.is_dir():
            shutil.copytree(source, target)
        else:
            shutil.copyfile(source, target)
    (clone / "tests/__init__.py").touch()
    return clone


def run_corpus(clone: Path, **environment: str) -> subprocess.CompletedProcess[str]:
    """Run the corpus tests of the clone."""
    kept = {n: v for n, v in os.environ.items() if n not in SET_BY_CI}
    pytest_ = (sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider")
    return subprocess.run(
        [*pytest_, "tests/conformance/test_corpus.py"],
        cwd=clone,
        env=kept | environment,
        capture_output=True,
        text=True,
        check=False,
    )


def test_a_clone_without_vectors_skips_them_in_ci_with_a_message(clone: Path) -> None:
    run = run_corpus(clone, CI="true")
    assert run.returncode == 0, run.stdout
    assert "3 skipped" in run.stdout
    assert "no vectors in " in run.stdout


def test_the_projects_own_ci_fails_when_they_are_lost(clone: Path) -> None:
    papers = clone.parent / "shared"
    papers.mkdir()
    (papers / "DESIGN.md").touch()
    run = run_corpus(clone, CI="true")
    assert run.returncode == 1, run.stdout
    assert "3 errors" in run.stdout
    assert "holds the project's papers" in run.stdout


@pytest.mark.parametrize(
    ("named", "environment", "has_papers", "reason"),
    [
        (None, {}, False, ""),
        (None, {}, True, ""),
        (None, {"CI": "true"}, False, ""),
        (None, {"CI": ""}, True, ""),
        (None, {"CI": "true"}, True, "holds the project's papers"),
        (None, {"GATEHOUSE_REQUIRE_VECTORS": "0"}, False, ""),
        (None, {"GATEHOUSE_REQUIRE_VECTORS": "1"}, False, "REQUIRE_VECTORS is set"),
        (Path("none"), {}, False, "--vectors names"),
    ],
)
def test_they_are_required_where_they_are_expected(
    tmp_path: Path,
    named: Path | None,
    environment: dict[str, str],
    has_papers: bool,
    reason: str,
) -> None:
    if has_papers:
        (tmp_path / "DESIGN.md").touch()
    found = why_required(named, environment, tmp_path)
    assert reason in found
    assert bool(found) is bool(reason)
