"""The required versions of the servers underneath (R41)."""

from __future__ import annotations

import tomllib
from pathlib import Path

import pytest
from packaging.requirements import Requirement

from issuer.serve import SERVER_OPTIONS
from verifier.serve import SERVER

ROOT = Path(__file__).resolve().parents[2]


def requirements(program: str) -> dict[str, Requirement]:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    lines = map(Requirement, project["optional-dependencies"][program])
    return {line.name: line for line in lines}


def test_the_database_brings_its_greenlet() -> None:
    """R41: asyncio's SQLAlchemy does not install it any more by default."""
    assert requirements("issuer")["sqlalchemy"].extras == {"asyncio"}


@pytest.mark.parametrize("options", [SERVER_OPTIONS, SERVER])
def test_web_sockets_are_off(options: dict[str, object]) -> None:
    """R41: with them uvicorn refuses the `Upgrade` that Caddy passes on."""
    assert options["ws"] == "none"
