"""A separate set of programs for tests that break them."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.support.postgres import PostgresServer, start_postgres
from tests.support.processes import ProcessFactory
from tests.support.stack import Stack


@pytest.fixture
def factory(tmp_path: Path) -> Iterator[ProcessFactory]:
    """Starts processes, and stops them when the test is over."""
    factory = ProcessFactory(tmp_path)
    try:
        yield factory
    finally:
        factory.stop_all()


@pytest.fixture
def stack(tmp_path: Path, factory: ProcessFactory) -> Stack:
    """Issuer, verifier and application, with the shortest staleness there is."""
    return Stack.start(tmp_path, factory, VERIFIER_MAX_STALENESS="11")


@pytest.fixture(scope="module")
def postgres() -> Iterator[PostgresServer]:
    """A PostgreSQL server that the tests of a module may break."""
    server = start_postgres()
    yield server
    server.stop()


@pytest.fixture
def scale(proof_scale: int) -> int:
    """The factor for the number of trials."""
    return proof_scale


@pytest.fixture
def tell(capsys: pytest.CaptureFixture[str]) -> Callable[[str, str], None]:
    """Prints a fault's counts, past pytest's capturing."""

    def tell(fault: str, counts: str) -> None:
        with capsys.disabled():
            print(f"\n{fault}: {counts}")

    return tell
