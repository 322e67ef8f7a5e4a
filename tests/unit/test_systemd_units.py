"""The systemd units start the right program, without rights it does not need."""

from __future__ import annotations

import itertools
import re
import shlex

import pytest

from tests.support.unit_file import ROOT, shipped

PROGRAMS = ["issuer", "verifier"]


@pytest.mark.parametrize("program", PROGRAMS)
def test_unit_runs_its_program_without_privileges(program: str) -> None:
    unit = shipped(program)
    command = f"/opt/gatehouse/.venv/bin/python -m {program}"
    assert unit.values("Service.ExecStart") == [command]
    assert unit.values("Service.EnvironmentFile") == [f"/etc/gatehouse/{program}.env"]
    assert unit.values("Service.User") == []
    # Set, and to nothing.
    assert unit.keys["Service.CapabilityBoundingSet"] == []
    for switch in ("DynamicUser", "NoNewPrivileges", "PrivateTmp", "ProtectHome"):
        assert unit.is_on(switch)
    assert unit.is_on("PrivateDevices")
    assert unit.value("Service.ProtectSystem") == "strict"
    # The settings hold secrets: they come from a file, never from the unit.
    copies = "VERIFIER_STATE_DIR=/var/lib/gatehouse-verifier/copies"
    given = unit.values("Service.Environment")
    assert given == ([copies] if program == "verifier" else [])


def test_issuer_migrates_before_it_serves() -> None:
    """The program refuses to serve on a schema that is behind."""
    assert shipped("issuer").command("ExecStartPre")[-2:] == ["issuer", "migrate"]
    assert shipped("verifier").command("ExecStartPre") == []


@pytest.mark.parametrize("program", PROGRAMS)
def test_unit_restarts_until_its_dependencies_are_there(program: str) -> None:
    """R55: by systemd's default, five starts in ten seconds are the last: a database
    that comes up later would find the issuer stopped for good. Nor does a status stop
    it: an address that is not there yet ends the verifier with that of bad settings."""
    unit = shipped(program)
    assert unit.value("Unit.StartLimitIntervalSec") == "0"
    assert unit.value("Service.Restart") == "on-failure"
    assert unit.values("Service.RestartPreventExitStatus") == []


def test_documented_commands_run_as_the_unit_does() -> None:
    """R55: as another user they would leave files that the service cannot write."""
    text = (ROOT / "docs/deployment.md").read_text().replace("\\\n", " ")
    (line,) = re.findall(r"^systemd-run .*$", text, re.MULTILINE)
    words = shlex.split(line)
    given = dict(
        after.split("=", 1) for word, after in itertools.pairwise(words) if word == "-p"
    )
    unit = shipped("issuer")
    # Without `User=` a dynamic user is called as the unit.
    assert given.pop("User") == unit.name
    assert {"DynamicUser", "StateDirectory", "EnvironmentFile"} <= given.keys()
    assert given == {key: unit.value(f"Service.{key}") for key in given}
    assert " ".join(unit.command("ExecStart")) in line
