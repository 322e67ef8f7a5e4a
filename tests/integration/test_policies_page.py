"""The commands of docs/policies.md ("Try it") show the output that the page shows."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.support.make_up import MakeUp
from tests.support.policy_page import blocks, first_policies
from tests.support.processes import ProcessFactory
from tests.support.walk_through import check_steps, read_steps

pytestmark = pytest.mark.processes


def test_first_policy_works_as_the_page_says(tmp_path: Path) -> None:
    (tmp_path / "policies.toml").write_text(first_policies())
    (commands,) = blocks("Try it", "sh")
    assert len(read_steps(commands)) == 7
    factory = ProcessFactory(tmp_path)
    try:
        up = MakeUp(factory, tmp_path / "var", policy_file=tmp_path / "policies.toml")
        up.wait_until_up()
        check_steps(commands, tmp_path)
    finally:
        factory.stop_all()
