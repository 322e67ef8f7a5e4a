"""The shipped files, run as they ship: the units under their restrictions, the image's
steps.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.postgres import PostgresServer, start_postgres
from tests.support.processes import ProcessFactory
from tests.support.unit_service import machine_folder


@pytest.fixture(scope="session")
def postgres() -> Iterator[PostgresServer]:
    """A server with a socket that every user may reach, as Debian's."""
    server = start_postgres()
    server.directory.chmod(0o711)
    yield server
    server.stop()


@pytest.fixture
def machine() -> Iterator[Path]:
    """A folder for the directories of one machine."""
    with machine_folder() as folder:
        yield folder


@pytest.fixture
def processes(tmp_path: Path, machine: Path) -> Iterator[ProcessFactory]:
    """Starts programs, which end before their machine is removed."""
    factory = ProcessFactory(tmp_path)
    yield factory
    factory.stop_all()
