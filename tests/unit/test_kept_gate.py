"""What one test compiles is taken by another only where it is the same."""

from __future__ import annotations

from pathlib import Path

import pytest

from deploy.compile import PACKAGES
from tests.support import compiled_gate

ABOUT = "3.11 .cpython-311.so linux-x86_64 2.4.1\n"


@pytest.fixture
def packages(tmp_path: Path) -> Path:
    """The folder of the sources."""
    folder = tmp_path / "packages"
    for name in (
        *(f"{package}/one.py" for package in PACKAGES),
        *("deploy/compile.py", "requirements/compile.lock"),
    ):
        file = folder / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(name)
    return folder


@pytest.fixture
def folder(tmp_path: Path, packages: Path) -> Path:
    """The folder of a run, in which a gate is kept."""
    compiled = tmp_path / "app"
    (compiled / "shared/__pycache__").mkdir(parents=True)
    (compiled / "shared/one.so").write_text("compiled")
    (compiled / "shared/__pycache__/one.pyc").touch()
    folder = tmp_path / "run"
    folder.mkdir()
    for _ in range(2):
        compiled_gate.keep(folder, compiled, ABOUT, packages)
    return folder


def test_a_kept_gate_is_found_whole_and_alone(folder: Path, packages: Path) -> None:
    """Kept twice, there is one."""
    found = compiled_gate.find(folder, ABOUT, packages)
    assert found is not None
    assert (found / "shared/one.so").read_text() == "compiled"
    assert not (found / "shared/__pycache__").exists()
    assert list(folder.iterdir()) == [found]


@pytest.mark.parametrize(
    "changed", ["shared/one.py", "deploy/compile.py", "requirements/compile.lock"]
)
def test_none_is_found_for_changed_sources(
    folder: Path, packages: Path, changed: str
) -> None:
    (packages / changed).write_text("changed")
    assert compiled_gate.find(folder, ABOUT, packages) is None


def test_none_is_found_for_a_new_module(folder: Path, packages: Path) -> None:
    (packages / "verifier/two.py").touch()
    assert compiled_gate.find(folder, ABOUT, packages) is None


def test_none_is_found_for_another_python(folder: Path, packages: Path) -> None:
    assert compiled_gate.find(folder, ABOUT.replace("311", "312"), packages) is None


def test_what_it_is_for_names_python_and_mypyc() -> None:
    words = compiled_gate.ask_here().split()
    assert words[0].startswith("3.")
    assert words[-3].endswith(".so")
    assert words[-1][0].isdigit()
