"""The wheel, and environments with it and the packages of one lock file.

Nothing is fetched: the locked packages are copied from the environment the tests run
in, whose lock has the same versions.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from importlib import metadata
from pathlib import Path

from tests.support.stub_index import read_lock

ROOT = Path(__file__).resolve().parents[2]


def tracked_files() -> list[str]:
    """Return the files that git has or would take, without those deleted."""
    command = ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
    listed = subprocess.run(
        command, cwd=ROOT, capture_output=True, text=True, check=True
    ).stdout
    return [name for name in listed.split("\0") if name and (ROOT / name).is_file()]


def build(folder: Path) -> Path:
    """Run `make dist` in a copy of the source; return the folder of wheel and sdist."""
    for name in tracked_files():
        target = folder / name
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(ROOT / name, target)
    # The environment these tests run in has what a build needs.
    ready = ("-o", f"{sys.prefix}/.ready", f"VENV={sys.prefix}")
    env = {"PATH": os.environ["PATH"], "HOME": str(folder), "PIP_NO_INDEX": "1"}
    subprocess.run(["make", *ready, "dist"], cwd=folder, env=env, check=True)
    return folder / "dist"


def install(wheel: Path, lock: str, environment: Path) -> Path:
    """Make an environment of the locked packages and the wheel; return its `bin`.

    Args:
        wheel: the file.
        lock: the name of a lock file.
        environment: where to make it.
    """
    base = Path(sys.base_prefix, "bin", f"python3.{sys.version_info.minor}")
    subprocess.run([base, "-m", "venv", "--without-pip", environment], check=True)
    (site,) = environment.glob("lib/python*/site-packages")
    for pin in read_lock((ROOT / "requirements" / lock).read_text()):
        if pin.applies:
            _copy(metadata.distribution(pin.name), pin.version, site)
    python = environment / "bin/python"
    pip = [sys.executable, "-m", "pip", "--python", str(python)]
    offline = ("--quiet", "--no-index", "--no-deps", "--disable-pip-version-check")
    subprocess.run([*pip, "install", *offline, wheel], check=True)
    subprocess.run([*pip, "check"], check=True, stdout=subprocess.DEVNULL)
    return python.parent


def _copy(distribution: metadata.Distribution, version: str, site: Path) -> None:
    """Copy one installed distribution, without the scripts that it has elsewhere."""
    assert distribution.version == version, f"{distribution.name}: run make setup"
    for file in distribution.files or []:
        if ".." in file.parts or file.suffix == ".pyc":
            continue
        target = site / file
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(str(file.locate()), target)
