"""R47: both programs answer and stop even if the reader of their log hangs."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from tests.support.fleet import Fleet, prepare
from tests.support.processes import ProcessFactory
from tests.support.raw_http import bearer, send
from tests.support.unit_file import ROOT

#: Before a command: its standard error is a full pipe, so the first line waits for
#: ever.
FULL_STDERR = (sys.executable, str(ROOT / "tests/support/full_stderr.py"))


@pytest.mark.processes
@pytest.mark.parametrize("workers", [1, 2])
def test_unread_log_pipe_blocks_no_request_and_no_stop(
    tmp_path: Path, factory: ProcessFactory, workers: int
) -> None:
    url = f"sqlite+aiosqlite:///{tmp_path}/issuer.db"
    fleet = Fleet(tmp_path, factory, url, prepare(url, tmp_path))
    issuer = fleet.start_issuer(prefix=FULL_STDERR)
    token = fleet.mint()
    gate = fleet.add_gate("gate", workers=workers, prefix=FULL_STDERR)
    assert isinstance(gate.address, Path)

    def check(value: str) -> int:
        return send(gate.address, "GET", "/verify/nginx", [bearer(value)]).status

    assert check(token) == 200
    assert check(token[:-4] + "AAAA") == 401
    # The issuer logs each of its refusals.
    for _ in range(20):
        assert send(fleet.replicas[0].port, "GET", "/nothing", []).status == 404
    assert fleet.revoke(token, wait=10).body["confirmed"] is True
    assert check(token) == 401
    process = gate.process
    assert process is not None
    assert process.terminate() == 0
    assert issuer.terminate() == 0
