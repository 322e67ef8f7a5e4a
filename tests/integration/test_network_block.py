"""What blocks the network for one folder's tests leaves the next test alone."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]

BLOCKED = """
import socket

import pytest


def test_replaces_what_is_blocked(monkeypatch):
    monkeypatch.setattr("socket.getaddrinfo", lambda *_: [])
    with pytest.warns(UserWarning), pytest.raises(RuntimeError):
        socket.socket(socket.AF_INET)
"""

FREE = """
import socket


def test_has_a_network():
    socket.getaddrinfo("127.0.0.1", 80)
"""


def test_a_replaced_lookup_does_not_bring_the_block_back(tmp_path: Path) -> None:
    """The next test failed before its first line, and all that share its fixtures."""
    blocked, free = tmp_path / "test_1_blocked.py", tmp_path / "test_2_free.py"
    blocked.write_text(f"from tests.support.network_block import *\n{BLOCKED}")
    free.write_text(FREE)
    run = subprocess.run(
        [
            *(sys.executable, "-m", "pytest", "-q", "-p", "no:randomly"),
            *("-p", "no:cacheprovider", "--rootdir", tmp_path, blocked, free),
        ],
        cwd=ROOT,
        env={**os.environ, "PYTEST_ADDOPTS": "", "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert "2 passed" in run.stdout, run.stdout
