"""Every fuzz target runs a little in every test run, and longer in `make proof`."""

from __future__ import annotations

import importlib.util
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.fuzz.targets import TARGETS

ROOT = Path(__file__).parents[2]
#: Seconds for all targets together, two at a time, in every test run.
SHARE = 8
#: So many inputs, or fewer, are no trial.
FEW = 100


@pytest.mark.processes
@pytest.mark.proof
def test_no_target_finds_anything_in_a_little_while(
    tmp_path: Path, proof_scale: int
) -> None:
    """R9, R17, R25: any input is accepted or refused with the one exception."""
    if importlib.util.find_spec("atheris") is None:
        message = "atheris is not installed: it has no wheel for this platform"
        if os.environ.get("CI"):
            pytest.fail(message)
        pytest.skip(message)
    few = set(TARGETS)
    # A target without time on a busy machine gets more: it must have been tried.
    for longer in (1, 10, 100):
        tried = fuzz(few, SHARE * proof_scale * longer, tmp_path)
        assert set(tried) == few
        few = {target for target, inputs in tried.items() if inputs <= FEW}
        if not few:
            break
    assert few == set()


def fuzz(targets: set[str], seconds: int, findings: Path) -> dict[str, int]:
    """Fuzz without a finding; return how many inputs each target was given."""
    ended = subprocess.run(
        [
            *(sys.executable, "-m", "tests.fuzz", "--jobs", "2"),
            *("--seconds", str(seconds), "--findings", str(findings)),
            *(part for target in sorted(targets) for part in ("--target", target)),
        ],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert ended.returncode == 0, ended.stdout + ended.stderr
    tried = re.findall(r"^(\w+) +(\d+) inputs", ended.stdout, re.MULTILINE)
    return {target: int(inputs) for target, inputs in tried}
