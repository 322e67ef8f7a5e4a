"""The compiled gate, compiled once in a test run: a minute of a processor.

The test of the images compiles it by the Dockerfile's lines. What came of that is what
the gate's tests run on, if it was compiled from the same files, for the same Python and
by the same mypyc. Processes that run side by side share a folder of their run; a test
that comes first, or alone, compiles by itself.
"""

from __future__ import annotations

import hashlib
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Final

import pytest

from deploy.compile import PACKAGES
from tests.support.dockerfile import ROOT

#: What a compiled module depends on besides its source: asked of the Python that
#: compiles, and of the one that is to run it.
_ABOUT: Final = (
    "import sys, sysconfig; from importlib.metadata import version; "
    "print(sys.version, sysconfig.get_config_var('EXT_SUFFIX'), "
    "sysconfig.get_platform(), version('mypy'))"
)
#: Prints that of the Python it is given to.
ASK: Final = ("-I", "-c", _ABOUT)
#: Besides the packages.
_SOURCES: Final = ("deploy/compile.py", "requirements/compile.lock")


def run_folder(factory: pytest.TempPathFactory, config: pytest.Config) -> Path:
    """Return a folder that all processes of this test run share, and no other run."""
    base = factory.getbasetemp()
    shared = base.parent if hasattr(config, "workerinput") else base
    folder = shared / "compiled-gate"
    folder.mkdir(exist_ok=True)
    return folder


def ask_here() -> str:
    """Return what a compiled module must be for, to run in these tests."""
    command = [sys.executable, *ASK]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout


def keep(folder: Path, compiled: Path, about: str, packages: Path = ROOT) -> None:
    """Keep a compiled gate for the other tests of this run.

    Args:
        folder: of the run.
        compiled: has the packages and the compiled modules.
        about: what `ASK` printed in the Python that compiled.
        packages: the folder of the sources.
    """
    place = _place(folder, about, packages)
    made = Path(tempfile.mkdtemp(dir=folder))
    leave_out = shutil.ignore_patterns("__pycache__")
    shutil.copytree(compiled, made, ignore=leave_out, dirs_exist_ok=True)
    try:
        # At once: another process finds all of it or nothing.
        made.rename(place)
    except OSError:
        shutil.rmtree(made)
        if not place.is_dir():
            raise


def find(folder: Path, about: str, packages: Path = ROOT) -> Path | None:
    """Return a gate that was kept, if it is of these sources and for this Python."""
    place = _place(folder, about, packages)
    return place if place.is_dir() else None


def _place(folder: Path, about: str, packages: Path) -> Path:
    digest = hashlib.sha256(about.strip().encode())
    for path in _files(packages):
        content = hashlib.sha256(path.read_bytes()).hexdigest()
        digest.update(f"\0{path.relative_to(packages)}\0{content}".encode())
    return folder / digest.hexdigest()


def _files(packages: Path) -> Sequence[Path]:
    found = [path for name in PACKAGES for path in (packages / name).rglob("*.py*")]
    modules = [path for path in found if path.suffix in {".py", ".pyi"}]
    return sorted([*modules, *(packages / name for name in _SOURCES)])
