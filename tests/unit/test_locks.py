"""Lock files are complete, agree with each other, and are installed in one way
(R54).
"""

from __future__ import annotations

import re
import tomllib
from importlib import metadata
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from shared.distribution import NAME
from tests.support.stub_index import Pin, read_lock
from tests.support.wheel import tracked_files

ROOT = Path(__file__).resolve().parents[2]
REQUIREMENTS = ROOT / "requirements"
LOCKS = sorted(path.name for path in REQUIREMENTS.glob("*.lock"))
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
#: Which extra each lock is made for; pip's is made for none.
EXTRAS = {name: name.removesuffix(".lock") for name in LOCKS if name != "pip.lock"}


def pins_of(name: str) -> dict[str, Pin]:
    pins = read_lock((REQUIREMENTS / name).read_text())
    assert pins
    return {pin.name: pin for pin in pins}


def wanted_by_extra(extra: str) -> list[Requirement]:
    """Return the requirements of one of the project's extras, extras opened."""
    texts = [*PROJECT["dependencies"]]
    for text in PROJECT["optional-dependencies"][extra]:
        requirement = Requirement(text)
        if canonicalize_name(requirement.name) == NAME:
            texts += [
                str(r) for own in requirement.extras for r in wanted_by_extra(own)
            ]
        else:
            texts.append(text)
    return [Requirement(text) for text in texts]


@pytest.mark.parametrize("name", LOCKS)
def test_an_entry_is_a_version_with_hashes_and_nothing_else(name: str) -> None:
    for pin in pins_of(name).values():
        assert re.fullmatch(r"==[^,*]+", str(pin.requirement.specifier))
        assert "--hash=sha256:" in pin.text
        assert pin.requirement.url is None
    assert "://" not in (REQUIREMENTS / name).read_text()
    assert "--index-url" not in (REQUIREMENTS / name).read_text()


@pytest.mark.parametrize("name", EXTRAS)
def test_a_lock_has_the_requirements_of_pyproject(name: str) -> None:
    """R54: after a change of dependencies, `make lock` brings the locks up to date."""
    pins = pins_of(name)
    for requirement in wanted_by_extra(EXTRAS[name]):
        pin = pins.get(canonicalize_name(requirement.name))
        assert pin is not None, f"{requirement}: run make lock"
        assert requirement.specifier.contains(pin.version), f"{pin.text}: run make lock"


@pytest.mark.parametrize("name", EXTRAS)
def test_r54_extras_required_by_packages_are_in_the_lock(name: str) -> None:
    """Without it pip before 24 looks for `coverage[toml]` outside the lock."""
    pins = pins_of(name)
    for pin in pins.values():
        if not pin.applies:
            continue
        for text in metadata.requires(pin.name) or []:
            needed = Requirement(text)
            given = {"extra": ""}
            asked = [given, *({"extra": extra} for extra in pin.requirement.extras)]
            if needed.marker and not any(map(needed.marker.evaluate, asked)):
                continue
            locked = pins.get(canonicalize_name(needed.name))
            assert locked is not None, f"{pin.name} needs {needed}"
            assert needed.extras <= locked.requirement.extras, f"{pin.name}: {needed}"


@pytest.mark.parametrize("name", EXTRAS)
def test_a_part_has_the_versions_that_are_tested(name: str) -> None:
    tested = pins_of("dev.lock")
    for package, pin in pins_of(name).items():
        assert pin.version == tested[package].version
        assert hashes_in(pin) == hashes_in(tested[package])


def hashes_in(pin: Pin) -> list[str]:
    return re.findall("--hash=sha256:[0-9a-f]{64}", pin.text)


def test_r54_nothing_installs_a_lock_but_the_one_script() -> None:
    """A second way would resolve again, as `pip install -r` does with an old pip."""
    other = []
    for name in tracked_files():
        if name.startswith("tests/") or name.endswith(".lock"):
            continue
        text = (ROOT / name).read_text(errors="replace").replace("\\\n", " ")
        other += [
            f"{name}: {line.strip()}"
            for line in text.splitlines()
            if re.search(r"install\b.*(?:-r|--requirement)[ =]\S", line)
            or ("--require-hashes" in line and "--no-deps" not in line)
        ]
    assert [
        line for line in other if not line.startswith("requirements/install:")
    ] == []
