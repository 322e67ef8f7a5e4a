"""The packages of a lock file are installed, and no others (R54).

The packages are stubs in an index on disk, where each of them has a newer release.
"""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest
from packaging.utils import canonicalize_name

from tests.support.stub_index import NEWER, StubIndex, read_lock

ROOT = Path(__file__).resolve().parents[2]
REQUIREMENTS = ROOT / "requirements"
LOCKS = sorted(path.name for path in REQUIREMENTS.glob("*.lock"))
#: Those that are installed in tests of their own.
OTHERWISE = ("pip.lock", "verifier.lock", "issuer.lock")
_LIST = """\
import json
from importlib import metadata
print(json.dumps({d.metadata["Name"]: d.version for d in metadata.distributions()}))
"""

pytestmark = pytest.mark.timeout(240)


def run(
    *command: str | Path, env: dict[str, str] | None = None
) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        list(map(str, command)), env=env, capture_output=True, text=True, check=False
    )


class Installer:
    """Stubs of all that is locked, and environments with the pip Python brings
    along.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        # In an environment, sys.executable is the environment's.
        base = Path(sys.base_prefix, "bin", f"python3.{sys.version_info.minor}")
        subprocess.run([base, "-m", "venv", folder / "old"], check=True)
        #: Its pip is the distribution's: 23.0.1 on Debian 12.
        self.old_python = folder / "old/bin/python"
        self._offer_all_locked(folder / "index")

    def _offer_all_locked(self, directory: Path) -> None:
        index = StubIndex(directory)
        # pip is locked, too, and its stub must be able to go on.
        pip = {"pip": _pip_sources(self._folder / "old")}
        for name in LOCKS:
            text = (REQUIREMENTS / name).read_text()
            (self._folder / name).write_text(index.relock(text, pip))
        self.env = {
            "PATH": f"{self.old_python.parent}:/usr/bin:/bin",
            "HOME": str(self._folder),
            "PIP_CONFIG_FILE": "/dev/null",
            "PIP_INDEX_URL": index.url,
        }

    def lock(self, name: str) -> Path:
        """Return the lock that goes with the real one of this name."""
        return self._folder / name

    def environment(self, path: Path, *, pip: bool = True) -> Path:
        """Make an environment, with the old pip or without one; return its Python."""
        if pip:
            shutil.copytree(self._folder / "old", path, symlinks=True)
        else:
            venv = (self.old_python, "-m", "venv", "--without-pip", path)
            assert run(*venv, env=self.env).returncode == 0
        return path / "bin/python"

    def install(self, python: Path, *locks: Path) -> subprocess.CompletedProcess[str]:
        """Install locks as Makefile and Dockerfile do."""
        script = REQUIREMENTS / "install"
        return run("sh", script, python, *locks, env=self.env)

    def installed(self, python: Path) -> dict[str, str]:
        """Return the versions of all that is installed, by name."""
        listed = json.loads(run(python, "-c", _LIST, env=self.env).stdout)
        return {canonicalize_name(name): version for name, version in listed.items()}


def _pip_sources(environment: Path) -> dict[str, bytes]:
    (site,) = environment.glob("lib/python*/site-packages")
    sources = [path for path in (site / "pip").rglob("*.*") if path.is_file()]
    return {
        str(path.relative_to(site)): path.read_bytes()
        for path in sources
        if path.suffix not in {".exe", ".pyc"}
    }


def pinned(*locks: Path) -> dict[str, str]:
    """Return the versions that locks name for this machine."""
    pins = (pin for lock in locks for pin in read_lock(lock.read_text()))
    return {pin.name: pin.version for pin in pins if pin.applies}


@pytest.fixture(scope="module")
def installer(tmp_path_factory: pytest.TempPathFactory) -> Installer:
    return Installer(tmp_path_factory.mktemp("installer"))


@pytest.mark.parametrize("name", sorted({*LOCKS} - {*OTHERWISE}))
def test_r54_old_pip_installs_the_lock_while_newer_releases_are_out(
    name: str, installer: Installer, tmp_path: Path
) -> None:
    """pip 23.0.1 resolved `coverage[toml]` anew once coverage had another release."""
    python = installer.environment(tmp_path / "venv")
    brought_along = installer.installed(python)

    done = installer.install(python, installer.lock(name))

    assert done.returncode == 0, done.stderr
    assert installer.installed(python) == brought_along | pinned(installer.lock(name))


def test_r54_the_locked_pip_installs_the_rest(
    installer: Installer, tmp_path: Path
) -> None:
    """As the Makefile has it: pip first."""
    python = installer.environment(tmp_path / "venv")
    locks = [installer.lock(name) for name in OTHERWISE[:2]]

    done = installer.install(python, *locks)

    assert done.returncode == 0, done.stderr
    assert pinned(*locks).items() <= installer.installed(python).items()


def test_r54_an_environment_without_pip_gets_the_lock_alone(
    installer: Installer, tmp_path: Path
) -> None:
    """The same holds in the images, which have no pip in their environments."""
    name = OTHERWISE[2]
    python = installer.environment(tmp_path / "venv", pip=False)

    done = installer.install(python, installer.lock(name))

    assert done.returncode == 0, done.stderr
    assert installer.installed(python) == pinned(installer.lock(name))


def test_the_index_does_offer_newer_releases(
    installer: Installer, tmp_path: Path
) -> None:
    """Without them the tests above would show nothing."""
    name = "python-socketio"
    pip = (
        installer.old_python,
        "-m",
        "pip",
        "download",
        "--no-deps",
        "-d",
        tmp_path,
        name,
    )
    assert run(*pip, env=installer.env).returncode == 0
    assert [path.name for path in tmp_path.iterdir()] == [
        f"python_socketio-{NEWER}-py3-none-any.whl"
    ]


def test_r54_a_wheel_that_is_not_the_locked_one_is_refused(
    installer: Installer, tmp_path: Path
) -> None:
    python = installer.environment(tmp_path / "venv")
    lock = tmp_path / "changed.lock"
    text = installer.lock("verifier.lock").read_text()
    lock.write_text(re.sub(r"sha256:[0-9a-f]{8}", "sha256:00000000", text, count=1))

    done = installer.install(python, lock)

    assert done.returncode != 0
    assert "DO NOT MATCH THE HASHES" in done.stderr


def test_r54_a_source_distribution_is_never_built(
    installer: Installer, tmp_path: Path
) -> None:
    """A build asks the index for build tools, which no lock names."""
    source = tmp_path / "only-source-1.0.zip"
    with zipfile.ZipFile(source, "w") as archive:
        archive.writestr("only-source-1.0/setup.py", "raise SystemExit('built')")
    lock = tmp_path / "source.lock"
    digest = run("sha256sum", source).stdout.split()[0]
    lock.write_text(f"only-source==1.0 \\\n    --hash=sha256:{digest}\n")
    python = installer.environment(tmp_path / "venv")
    found = {**installer.env, "PIP_FIND_LINKS": str(tmp_path)}

    done = run("sh", REQUIREMENTS / "install", python, lock, env=found)

    assert done.returncode != 0
    assert "No matching distribution found for only-source==1.0" in done.stderr


def test_conflicting_packages_are_reported_with_the_next_step(
    installer: Installer, tmp_path: Path
) -> None:
    """As in an environment that an older version was installed into."""
    python = installer.environment(tmp_path / "venv")
    old = StubIndex(tmp_path / "old-index")
    old.add("left-over", "1.0", ["orjson<1"], {})
    pip = (python, "-m", "pip", "install", "--no-deps", "left-over")
    assert run(*pip, env=installer.env | {"PIP_INDEX_URL": old.url}).returncode == 0

    done = installer.install(python, installer.lock("verifier.lock"))

    assert done.returncode == 1
    assert "left-over 1.0 has requirement orjson<1" in done.stderr
    assert "remove that environment and install again" in done.stderr


def test_usage_is_printed_without_a_lock(installer: Installer) -> None:
    done = installer.install(installer.old_python)
    assert done.returncode == 2
    assert done.stderr.startswith("usage: ")
