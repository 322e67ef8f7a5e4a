"""The systemd units start the right program, without rights it does not need."""

from __future__ import annotations

import pytest

from tests.support.unit_file import shipped

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
def test_unit_starts_again_until_what_it_needs_is_there(program: str) -> None:
    """R55: by systemd's default, five starts in ten seconds are the last: a database that
    comes up later would find the issuer stopped for good. Bad settings stay bad."""
    unit = shipped(program)
    assert unit.value("Unit.StartLimitIntervalSec") == "0"
    assert unit.value("Service.Restart") == "on-failure"
    assert unit.value("Service.RestartPreventExitStatus") == "2"
