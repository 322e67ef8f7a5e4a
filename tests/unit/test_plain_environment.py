"""CI sees the project as a machine does that was only just set up (R54)."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
INDEX = "https://index.invalid/simple"
MAY_PASS = {
    "PIP_INDEX_URL": INDEX,
    "PIP_CERT": "/etc/ssl/certs/own.pem",
    "SSL_CERT_FILE": "/etc/ssl/certs/own.pem",
    "NODE_EXTRA_CA_CERTS": "/etc/ssl/certs/own.pem",
    "npm_config_registry": "https://npm.invalid",
    "http_proxy": "http://proxy.invalid",
    "HTTPS_PROXY": "http://proxy.invalid",
    "no_proxy": "localhost",
}
MAY_NOT_PASS = {
    "HOME": "/nonexistent",
    "PIP_FIND_LINKS": "/wheels",
    "PIP_NO_DEPS": "1",
    "PIP_CONFIG_FILE": "/dev/null",
    "PYTHONPATH": "/nonexistent",
    "PYTHONDONTWRITEBYTECODE": "1",
    "ISSUER_URL": "https://issuer.invalid",
    "LANG": "xx_XX",
}


def plainly(*command: str, home: Path, **env: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        ["/bin/sh", ".ci/plainly", str(home), *command],
        cwd=ROOT,
        env={"PATH": "/usr/bin:/bin", "PYTHON3": sys.executable, **env},
        capture_output=True,
        text=True,
        check=False,
    )


def environment(home: Path, **env: str) -> dict[str, str]:
    shown = plainly("/usr/bin/env", home=home, **env)
    assert shown.returncode == 0, shown.stderr
    return dict(line.split("=", 1) for line in shown.stdout.splitlines())


def test_only_the_way_to_the_index_is_passed_on(tmp_path: Path) -> None:
    seen = environment(tmp_path, **MAY_PASS, **MAY_NOT_PASS)
    assert seen == {**MAY_PASS, "HOME": str(tmp_path), "PATH": "/usr/bin:/bin"}


def test_an_index_of_pips_own_settings_is_passed_on_by_name(tmp_path: Path) -> None:
    settings = tmp_path / "pip.conf"
    settings.write_text(
        f"[global]\nindex-url = {INDEX}\ncert = /own.pem\nfind-links = /wheels\n"
    )
    seen = environment(tmp_path, PIP_CONFIG_FILE=str(settings))
    assert seen["PIP_INDEX_URL"] == INDEX
    assert seen["PIP_CERT"] == "/own.pem"
    assert "find" not in str(seen).lower()


def test_settings_may_precede_the_command_and_its_status_counts(
    tmp_path: Path,
) -> None:
    shown = plainly("CI=true", "/bin/sh", "-c", 'echo "$CI"; exit 7', home=tmp_path)
    assert shown.stdout == "true\n"
    assert shown.returncode == 7


@pytest.fixture
def clone(tmp_path: Path) -> Path:
    """A folder with everything that make needs to decide."""
    for name in ("Makefile", "pyproject.toml", "setup.py"):
        shutil.copy2(ROOT / name, tmp_path / name)
    for name in ("requirements", ".ci"):
        shutil.copytree(ROOT / name, tmp_path / name)
    return tmp_path


def would_do(folder: Path, *words: str) -> str:
    """Return the commands that make would run."""
    return subprocess.run(
        ["make", "-n", *words],
        cwd=folder,
        env={"PATH": "/usr/bin:/bin"},
        capture_output=True,
        text=True,
        check=True,
    ).stdout


def test_make_up_of_a_fresh_clone_installs_the_small_lock(clone: Path) -> None:
    commands = would_do(clone, "up")
    assert (
        "sh requirements/install var/up-venv/bin/python "
        "requirements/pip.lock requirements/demo.lock" in commands
    )
    assert "dev.lock" not in commands
    assert "exec var/up-venv/bin/python -m deploy.demo.up" in commands


def test_make_up_uses_the_whole_environment_where_it_is_ready(clone: Path) -> None:
    (clone / ".venv").mkdir()
    (clone / ".venv/.ready").touch()
    commands = would_do(clone, "up")
    assert "demo.lock" not in commands
    assert "exec .venv/bin/python -m deploy.demo.up" in commands


@pytest.mark.parametrize("target", ["setup", "test", "lint"])
def test_packages_of_make_up_are_never_taken_for_all_packages(
    target: str, clone: Path
) -> None:
    (clone / "var/up-venv").mkdir(parents=True)
    (clone / "var/up-venv/.ready").touch()
    commands = would_do(clone, target)
    assert "requirements/pip.lock requirements/dev.lock" in commands
    assert "var/up-venv" not in commands
