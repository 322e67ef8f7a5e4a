"""One `make up`, in which the pages' commands are typed."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.support.make_up import MakeUp
from tests.support.processes import ProcessFactory


@pytest.fixture(scope="session")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[MakeUp]:
    folder = tmp_path_factory.mktemp("docs")
    factory = ProcessFactory(folder)
    try:
        up = MakeUp(factory, folder / "var")
        up.wait_until_up()
        yield up
    finally:
        factory.stop_all()
