"""The commands of the README show the output that the README shows."""

from __future__ import annotations

import re
from collections.abc import Iterator

import pytest

from deploy.demo.installation import ROOT
from deploy.demo.up import walk_through
from tests.support.make_up import MakeUp
from tests.support.processes import ProcessFactory
from tests.support.walk_through import check_steps, read_steps

pytestmark = pytest.mark.processes


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[MakeUp]:
    folder = tmp_path_factory.mktemp("readme")
    factory = ProcessFactory(folder)
    try:
        up = MakeUp(factory, folder / "var")
        up.wait_until_up()
        yield up
    finally:
        factory.stop_all()


@pytest.fixture(scope="module")
def printed(running: MakeUp) -> str:
    """The output until it was up; later requests do not change it."""
    return running.process.log()


@pytest.mark.usefixtures("printed")
def test_readme_walk_through_works_as_written(running: MakeUp) -> None:
    commands = walk_through()
    assert len(read_steps(commands)) >= 6
    check_steps(commands, running.var.parent)


def test_make_up_prints_the_walk_through_for_its_own_folder(
    running: MakeUp, printed: str
) -> None:
    assert f". {running.var}/demo.env" in printed
    assert '"$GATEWAY_URL/orders"' in printed
    assert printed.rstrip().endswith("gatehouse is up")


def test_files_the_readme_links_to_exist() -> None:
    readme = (ROOT / "README.md").read_text()
    links = re.findall(r"\]\((?!https?:)([^)#]+)", readme)
    assert links
    assert [link for link in links if not (ROOT / link).exists()] == []
