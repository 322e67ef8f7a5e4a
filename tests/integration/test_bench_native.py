"""The bench of native checks, in short, with real programs."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from loadtests.bench_native.__main__ import main
from tests.support.installed_gateways import require

pytestmark = pytest.mark.processes


@pytest.mark.parametrize(
    ("gateway", "step"), [("envoy", "refusals"), ("haproxy", "haproxy-refusals")]
)
def test_a_revocation_is_refused_by_a_real_gateway(
    tmp_path: Path, gateway: str, step: str
) -> None:
    require(gateway)
    out = tmp_path / "native.json"
    sizes = ["--entries", "50", "--samples", "3", "--json", str(out)]
    # 1 says that a bound is passed, as on a busy machine.
    assert main(["--only", step, *sizes]) in {0, 1}
    figures = json.loads(out.read_text())["figures"]
    (delays,) = [each["samples"] for each in figures if each["name"].endswith("p99")]
    assert len(delays) == 3
    assert all(delay > 0 for delay in delays)
