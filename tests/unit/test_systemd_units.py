"""The systemd units start the right program, without rights it does not need."""

from __future__ import annotations

from pathlib import Path

import pytest

UNITS = Path(__file__).resolve().parents[2] / "deploy/systemd"


def read_unit(program: str) -> dict[str, list[str]]:
    """Return every value by its key; systemd lets a key stand several times."""
    values: dict[str, list[str]] = {}
    for line in (UNITS / f"gatehouse-{program}.service").read_text().splitlines():
        key, mark, value = line.partition("=")
        if mark and not line.startswith("#"):
            values.setdefault(key, []).append(value)
    return values


@pytest.mark.parametrize("program", ["issuer", "verifier"])
def test_unit_runs_its_program_without_privileges(program: str) -> None:
    unit = read_unit(program)
    assert unit["ExecStart"] == [f"/opt/gatehouse/.venv/bin/python -m {program}"]
    assert unit["EnvironmentFile"] == [f"/etc/gatehouse/{program}.env"]
    assert unit["DynamicUser"] == ["yes"]
    assert "User" not in unit
    assert unit["CapabilityBoundingSet"] == [""]
    for switch in ("NoNewPrivileges", "PrivateDevices", "PrivateTmp", "ProtectHome"):
        assert unit[switch] == ["yes"]
    assert unit["ProtectSystem"] == ["strict"]
    # The settings hold secrets: they come from a file, never from the unit.
    copies = "VERIFIER_STATE_DIR=/var/lib/gatehouse-verifier/copies"
    assert unit.get("Environment", []) == ([copies] if program == "verifier" else [])


def test_issuer_migrates_before_it_serves() -> None:
    """The program refuses to serve on a schema that is behind."""
    assert read_unit("issuer")["ExecStartPre"][0].endswith("-m issuer migrate")
    assert "ExecStartPre" not in read_unit("verifier")
