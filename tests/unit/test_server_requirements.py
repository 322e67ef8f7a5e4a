"""What is asked of the servers underneath (R41)."""

from __future__ import annotations

import ast
import tomllib
from importlib.metadata import version
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.version import Version

from issuer.workers import IssuerWorker
from verifier.serve import VerifierWorker

ROOT = Path(__file__).resolve().parents[2]
PROGRAMS = ["issuer", "verifier"]


def requirements(program: str) -> dict[str, Requirement]:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    lines = map(Requirement, project["optional-dependencies"][program])
    return {line.name: line for line in lines}


@pytest.mark.parametrize("program", PROGRAMS)
def test_an_older_gunicorn_is_not_taken(program: str) -> None:
    """R41, in the extra that a program is installed with."""
    wanted = requirements(program)
    assert not wanted["gunicorn"].specifier.contains(Version("27.0.0"))
    assert wanted["gunicorn"].specifier.contains(version("gunicorn"))
    assert "uvicorn-worker" in wanted


def test_the_database_brings_its_greenlet() -> None:
    """R41: asyncio's SQLAlchemy does not pull it in any more unless told."""
    assert requirements("issuer")["sqlalchemy"].extras == {"asyncio"}


@pytest.mark.parametrize("program", PROGRAMS)
def test_the_deprecated_workers_are_not_used(program: str) -> None:
    """R41."""
    imported = {
        node.module
        for path in (ROOT / program).rglob("*.py")
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.ImportFrom)
    }
    assert "uvicorn_worker" in imported
    assert "uvicorn.workers" not in imported


@pytest.mark.parametrize("worker", [IssuerWorker, VerifierWorker])
def test_web_sockets_are_off(worker: type) -> None:
    """R41: with them uvicorn refuses the `Upgrade` that Caddy passes on."""
    assert worker.CONFIG_KWARGS["ws"] == "none"


@pytest.mark.parametrize("file", ["issuer/workers.py", "verifier/serve.py"])
def test_the_control_socket_is_off(file: str) -> None:
    """R41: whoever could open it would command the master."""
    options = {
        key.value: ast.unparse(value)
        for node in ast.walk(ast.parse((ROOT / file).read_text()))
        if isinstance(node, ast.Dict)
        for key, value in zip(node.keys, node.values, strict=True)
        if isinstance(key, ast.Constant)
    }
    assert options["control_socket_disable"] == "True"
