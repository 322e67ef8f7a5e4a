"""Workflow, issue forms and hooks are of the forms that their programs read."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

ROOT = Path(__file__).resolve().parents[2]
WORKFLOWS = sorted((ROOT / ".github" / "workflows").glob("*.yml"))
FORMS = ROOT / ".github" / "ISSUE_TEMPLATE"
HOOKS = ROOT / ".pre-commit-config.yaml"
#: The schemas that check-jsonschema brings along, by file.
SCHEMAS = {
    **dict.fromkeys(WORKFLOWS, "vendor.github-workflows"),
    **dict.fromkeys(FORMS.glob("[!c]*.yml"), "vendor.github-issue-forms"),
    FORMS / "config.yml": "vendor.github-issue-config",
}


def read(path: Path) -> Any:
    return yaml.safe_load(path.read_text())


@pytest.mark.parametrize("path", SCHEMAS, ids=lambda path: path.name)
def test_file_has_the_form_that_github_reads(path: Path) -> None:
    schema = ("--builtin-schema", SCHEMAS[path])
    command = (sys.executable, "-m", "check_jsonschema", *schema, str(path))
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout


@pytest.mark.parametrize("path", WORKFLOWS, ids=lambda path: path.name)
def test_actions_are_pinned_by_their_commit(path: Path) -> None:
    """A tag may be moved to other code."""
    used = re.findall(r"uses: (\S+)", path.read_text())
    assert used
    assert [use for use in used if not re.search("@[0-9a-f]{40}$", use)] == []


def test_ci_runs_what_a_clean_clone_runs() -> None:
    job = read(ROOT / ".github" / "workflows" / "ci.yml")["jobs"]["ci"]
    assert job["steps"][-1]["run"] == "bash .ci/run"
    assert job["container"]["image"].startswith("debian:12")


def test_hooks_are_the_tools_of_the_locks() -> None:
    (repository,) = read(HOOKS)["repos"]
    assert repository["repo"] == "local"
    makefile = (ROOT / "Makefile").read_text()
    for hook in repository["hooks"]:
        tool, *arguments = hook["entry"].split()
        assert (tool.startswith(".venv/bin/"), hook["language"]) == (True, "system")
        name = arguments[0] if tool.endswith("python") else Path(tool).name
        lint = makefile.partition("\nlint:")[2].partition("\n\n")[0]
        assert name in lint, f"make lint does not run {name}"
