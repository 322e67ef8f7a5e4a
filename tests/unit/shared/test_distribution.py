"""The names of the distribution and its commands, and how they refuse to start."""

from __future__ import annotations

import builtins
import re
import sys
import tomllib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import issuer.__main__
import verifier.__main__
from shared.distribution import (
    NAME,
    PACKAGES,
    VERSION,
    console_command,
    invoked_as,
    version_line,
)

ROOT = Path(__file__).resolve().parents[3]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
ENTRIES = {"issuer": issuer.__main__.main, "verifier": verifier.__main__.main}


def test_the_names_are_those_of_pyproject() -> None:
    assert PROJECT["name"] == NAME
    assert set(PROJECT["scripts"]) == {console_command(name) for name in ENTRIES}
    assert all((ROOT / package / "py.typed").is_file() for package in PACKAGES)


def test_the_version_is_written_in_one_place() -> None:
    assert "version" in PROJECT["dynamic"]
    assert re.fullmatch(r"\d+\.\d+\.\d+", VERSION)
    assert version_line("issuer") == f"gatehouse-issuer {VERSION}"


@pytest.mark.parametrize(
    ("called", "shown"),
    [
        ("/usr/bin/gatehouse-verifier", "gatehouse-verifier"),
        ("/app/verifier/__main__.py", "python -m verifier"),
        ("/usr/bin/gatehouse-issuer", "python -m verifier"),
    ],
)
def test_usage_names_the_command_that_was_typed(
    called: str, shown: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "argv", [called])
    assert invoked_as("verifier") == shown


@pytest.fixture
def without(monkeypatch: pytest.MonkeyPatch) -> Callable[[str], None]:
    """Make the import of one module fail as when it is not installed."""
    real = builtins.__import__

    def remove(missing: str) -> None:
        def imports(name: str, *rest: Any, **named: Any) -> Any:
            if name.endswith(".commands.main"):
                raise ModuleNotFoundError(f"No module named {missing!r}", name=missing)
            return real(name, *rest, **named)

        monkeypatch.setattr(builtins, "__import__", imports)

    return remove


@pytest.mark.parametrize("program", ENTRIES)
def test_missing_package_is_reported_with_the_extra_to_install(
    program: str, without: Callable[[str], None], capsys: pytest.CaptureFixture[str]
) -> None:
    without("uvloop.loop")
    assert ENTRIES[program]() == 1
    output = capsys.readouterr().err
    assert "the package uvloop.loop is not installed" in output
    wheel = f"gatehouse_auth-{VERSION}-py3-none-any.whl"
    assert f"pip install '{wheel}[{program}]'" in output


@pytest.mark.parametrize("program", ENTRIES)
def test_a_missing_module_of_ours_is_a_fault_and_shows_as_one(
    program: str, without: Callable[[str], None]
) -> None:
    without(f"{program}.gone")
    with pytest.raises(ModuleNotFoundError):
        ENTRIES[program]()


@pytest.mark.parametrize("program", ENTRIES)
def test_the_version_needs_no_package_of_the_program(
    program: str,
    without: Callable[[str], None],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    without("uvloop.loop")
    monkeypatch.setattr("sys.argv", [f"gatehouse-{program}", "--version"])
    assert ENTRIES[program]() == 0
    assert capsys.readouterr().out == version_line(program) + "\n"
