"""The commands of the README show the output that the README shows."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from collections.abc import Iterator

import pytest

from deploy.demo.installation import ROOT, plain_environment
from deploy.demo.up import walk_through
from tests.support.make_up import MakeUp
from tests.support.processes import ProcessFactory

pytestmark = pytest.mark.processes

_MARK = "=====walk-through====="


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


def read_steps(commands: str) -> list[tuple[str, list[str]]]:
    """Return (commands, their output) for each group of `#>` lines."""
    steps = re.findall(r"(.*?)((?:^#> [^\n]*\n)+)", commands, re.DOTALL | re.MULTILINE)
    return [
        (typed, [line.removeprefix("#> ") for line in shown.splitlines()])
        for typed, shown in steps
    ]


@pytest.mark.usefixtures("printed")
def test_readme_walk_through_works_as_written(running: MakeUp) -> None:
    if shutil.which("curl") is None:
        if os.environ.get("CI") == "true":
            pytest.fail("curl is not installed; in CI it must be there")
        pytest.skip("curl is not installed")
    steps = read_steps(walk_through())
    assert len(steps) >= 6
    script = "".join(f"{typed}\necho; echo '{_MARK}'\n" for typed, _ in steps)

    # As a stranger does: in a shell, in the folder that has var/ in it.
    run = subprocess.run(
        ["sh", "-u"],
        input=script,
        cwd=running.var.parent,
        env=plain_environment(),
        capture_output=True,
        text=True,
        check=False,
    )

    assert run.stderr == ""
    outputs = run.stdout.split(_MARK)
    assert len(outputs) == len(steps) + 1
    for (typed, shown), output in zip(steps, outputs, strict=False):
        for text in shown:
            assert text in output, typed


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
