"""Faults that would keep the gate from working stop the start, with status 2.

`check` finds them too: tests/integration/verifier/test_check.py.
"""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from verifier.commands.main import main


@pytest.fixture(autouse=True)
def _settings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for name, value in {
        "VERIFIER_ISSUER_URL": "https://issuer.test",
        "VERIFIER_AUDIENCE": "api",
        "VERIFIER_FEED_TOKEN": "t" * 32,
    }.items():
        monkeypatch.setenv(name, value)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, "cannot be read: No such file or directory"),
        (b"", "is empty"),
        (b"text", "is not PEM"),
        (b"-----BEGIN PRIVATE KEY-----\n", "holds no certificate"),
        (b"-----BEGIN CERTIFICATE-----\nhalf", "is damaged"),
    ],
    ids=["missing", "empty", "not PEM", "no certificate", "damaged"],
)
def test_r59_a_ca_file_that_cannot_be_used_stops_the_start(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    content: bytes | None,
    message: str,
) -> None:
    path = tmp_path / "ca.pem"
    if content is not None:
        path.write_bytes(content)
    monkeypatch.setenv("VERIFIER_CA_FILE", str(path))
    assert main(["serve"]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith(f"VERIFIER_CA_FILE: {path} ")
    assert message in line


def test_a_planted_state_directory_stops_the_start(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "gatehouse-verifier").symlink_to(tmp_path / "elsewhere")
    monkeypatch.setenv("VERIFIER_STATE_DIR", str(tmp_path))
    assert main(["serve"]) == 2
    assert capsys.readouterr().err.startswith("VERIFIER_STATE_DIR: ")


def test_a_policy_file_is_a_file_and_has_a_bound(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """A pipe would be waited for, a device read without an end."""
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    for path, shown in (
        (pipe, "is not a regular file"),
        (Path("/dev/zero"), "is not a regular file"),
        (tmp_path, "is a directory"),
        (tmp_path / "absent", "is not there"),
    ):
        monkeypatch.setenv("VERIFIER_POLICY_FILE", str(path))
        assert main(["serve"]) == 2
        assert capsys.readouterr().err == f"VERIFIER_POLICY_FILE: {path} {shown}\n"
