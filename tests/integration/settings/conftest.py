"""Both programs, each asked with settings of the test's own."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.support.programs import PROGRAMS, Desk, Program


@pytest.fixture(params=PROGRAMS, ids=lambda p: p.prefix.strip("_").lower())
def desk(
    request: pytest.FixtureRequest,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> Desk:
    program: Program = request.param
    return Desk(program, tmp_path, monkeypatch, capsys)
