"""The table of requirements names rules, modules and tests that exist."""

from __future__ import annotations

import ast
import re
from fnmatch import fnmatchcase
from functools import cache
from pathlib import Path
from typing import NamedTuple

import pytest

ROOT = Path(__file__).resolve().parents[2]
DOCUMENT = ROOT / "docs" / "requirements.md"
RULES = [*(f"R{number}" for number in range(1, 49)), "R60", "R67", "R68"]


class Row(NamedTuple):
    """One rule's cells."""

    rule: str
    wording: str
    kept_in: str
    guarded_by: str


def rows() -> list[Row]:
    lines = re.findall(r"^\| (?=R\d)(.+) \|$", DOCUMENT.read_text(), re.MULTILINE)
    return [Row(*line.split(" | ")) for line in lines]


def named(cell: str) -> list[str]:
    """Return the texts between backticks."""
    return re.findall(r"`([^`]+)`", cell)


@cache
def names_in(path: Path) -> frozenset[str]:
    """Return the names of a file's tests, by reading it, also those in classes."""
    nodes = ast.walk(ast.parse(path.read_text()))
    functions = (
        n for n in nodes if isinstance(n, ast.FunctionDef | ast.AsyncFunctionDef)
    )
    return frozenset(f.name for f in functions if f.name.startswith("test_"))


def is_there(test: str) -> bool:
    """Return whether a file, and a test of that name or pattern in it, exist."""
    file, _, pattern = test.partition("::")
    path = ROOT / "tests" / file
    return path.is_file() and (
        not pattern or any(fnmatchcase(name, pattern) for name in names_in(path))
    )


def test_every_rule_has_exactly_one_row() -> None:
    assert [row.rule for row in rows()] == RULES


@pytest.mark.parametrize("row", rows(), ids=lambda row: row.rule)
def test_every_module_and_test_that_is_named_exists(row: Row) -> None:
    assert row.wording
    assert named(row.kept_in)
    missing = [path for path in named(row.kept_in) if not (ROOT / path).exists()]
    assert missing == []
    gone = [test for test in named(row.guarded_by) if not is_there(test)]
    assert gone == []


@pytest.mark.parametrize("row", rows(), ids=lambda row: row.rule)
def test_a_rule_is_guarded_or_open(row: Row) -> None:
    """A row marked open is not guarded by other text beside the word."""
    guards, _, what_is_open = row.guarded_by.partition("**open**: ")
    assert named(guards) or what_is_open


@pytest.mark.parametrize(
    "test",
    [
        "unit/test_nothing.py",
        "unit/test_requirements_table.py::test_nothing",
        "unit/test_requirements_table.py::test_every_rule",
        "unit/test_requirements_table.py::rows",
    ],
)
def test_a_missing_file_or_test_is_reported(test: str) -> None:
    assert not is_there(test)
