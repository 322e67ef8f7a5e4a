"""The scripts beside CI refuse wrong environments, and name the remedy."""

from __future__ import annotations

import importlib.util
import os
import re
import subprocess
import sys
from pathlib import Path
from types import ModuleType

ROOT = Path(__file__).resolve().parents[2]


def find_python(path: Path, **env: str) -> subprocess.CompletedProcess[str]:
    """Run it with nothing on the PATH but the programs in `path`."""
    return subprocess.run(
        ["/bin/sh", str(ROOT / ".ci/find_python")],
        env={"PATH": str(path), "SYSTEM_PYTHON3": str(path / "system"), **env},
        capture_output=True,
        text=True,
        check=False,
    )


def write_program(path: Path, text: str) -> None:
    path.write_text(f"#!/bin/sh\n{text}\n")
    path.chmod(0o755)


def test_old_python_is_refused_with_a_remedy(tmp_path: Path) -> None:
    write_program(
        tmp_path / "python3",
        'case "$1" in --version) echo "Python 3.9.2" ;; *) exit 1 ;; esac',
    )
    run = find_python(tmp_path)
    assert run.returncode == 1
    assert run.stdout == ""
    assert "needs Python 3.11 or newer; found: Python 3.9.2" in run.stderr


def test_missing_python_is_refused_with_a_remedy(tmp_path: Path) -> None:
    run = find_python(tmp_path)
    assert run.returncode == 1
    assert "found: none" in run.stderr


def test_newer_python_beside_an_old_one_is_found(tmp_path: Path) -> None:
    write_program(tmp_path / "python3", "exit 1")
    os.symlink(sys.executable, tmp_path / "python3.12")
    run = find_python(tmp_path)
    assert run.returncode == 0
    assert run.stdout == f"{tmp_path / 'python3.12'}\n"


def test_python_without_venv_is_refused_with_the_package_to_install(
    tmp_path: Path,
) -> None:
    write_program(
        tmp_path / "python3", 'case "$2" in *ensurepip*) exit 1 ;; *) exit 0 ;; esac'
    )
    run = find_python(tmp_path)
    assert run.returncode == 1
    assert "python3-venv" in run.stderr


def test_the_distributions_python_comes_first_and_a_named_one_before_it(
    tmp_path: Path,
) -> None:
    for name in ("python3", "system", "named"):
        os.symlink(sys.executable, tmp_path / name)
    assert find_python(tmp_path).stdout == f"{tmp_path / 'system'}\n"
    named = str(tmp_path / "named")
    assert find_python(tmp_path, PYTHON3=named).stdout == f"{named}\n"


def test_python_without_venv_is_passed_over_for_one_with_it(tmp_path: Path) -> None:
    write_program(
        tmp_path / "system", 'case "$2" in *ensurepip*) exit 1 ;; *) exit 0 ;; esac'
    )
    os.symlink(sys.executable, tmp_path / "python3")
    assert find_python(tmp_path).stdout == f"{tmp_path / 'python3'}\n"


def load_check_tree() -> ModuleType:
    spec = importlib.util.spec_from_file_location(
        "check_tree", ROOT / ".ci/check_tree.py"
    )
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_registry_host_and_machine_path_are_found_in_files(tmp_path: Path) -> None:
    check = load_check_tree()
    home = "/" + "home/somebody/gatehouse"
    file = tmp_path / "notes.md"
    file.write_text(f"fine\nindex: registry.invalid\nsee {home}\nhttps://a/b/home/c\n")
    hosts = re.compile(re.escape("registry.invalid"))

    found = list(check.offences([file], (hosts, check.MACHINE_PATH)))

    assert [offence.split(":")[1] for offence in found] == ["2", "3"]


def test_this_machine_has_registries_to_look_for() -> None:
    """A check that looks for nothing would find nothing."""
    hosts = load_check_tree().registry_hosts()
    assert hosts
    assert all("." in host for host in hosts)


def test_check_tree_runs_after_distutils_was_imported() -> None:
    """Issue 9: an import of pip's own modules then is a warning of setuptools."""
    script = (
        "import contextlib, runpy, sys\n"
        "with contextlib.suppress(ModuleNotFoundError): import distutils\n"
        "check = runpy.run_path(sys.argv[1])\n"
        "assert check['registry_hosts']()\n"
    )
    run = subprocess.run(
        [sys.executable, "-W", "error", "-c", script, str(ROOT / ".ci/check_tree.py")],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert run.returncode == 0, run.stderr
