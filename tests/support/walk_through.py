"""Runs the commands of a page, and looks for the output that the page shows."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from deploy.demo.installation import ROOT, plain_environment

_MARK = "=====walk-through====="


def read_steps(commands: str) -> list[tuple[str, list[str]]]:
    """Return (commands, their output) for each group of `#>` lines."""
    steps = re.findall(r"(.*?)((?:^#> [^\n]*\n)+)", commands, re.DOTALL | re.MULTILINE)
    return [
        (typed, [line.removeprefix("#> ") for line in shown.splitlines()])
        for typed, shown in steps
    ]


def check_steps(commands: str, folder: Path) -> None:
    """Type the commands as a stranger does: in one shell, in a folder with var/ in it.

    `python` is the one that runs the tests, and finds our packages.
    """
    if shutil.which("curl") is None:
        if os.environ.get("CI") == "true":
            pytest.fail("curl is not installed; in CI it must be there")
        pytest.skip("curl is not installed")
    steps = read_steps(commands)
    environment = plain_environment()
    environment["PATH"] = f"{Path(sys.executable).parent}:{environment['PATH']}"
    run = subprocess.run(
        ["sh", "-u"],
        input="".join(f"{typed}\necho; echo '{_MARK}'\n" for typed, _ in steps),
        cwd=folder,
        env=environment | {"PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert run.stderr == "", run.stderr
    outputs = run.stdout.split(_MARK)
    assert len(outputs) == len(steps) + 1
    for (typed, shown), output in zip(steps, outputs, strict=False):
        for text in shown:
            assert text in output, f"{typed}\n{output}"
