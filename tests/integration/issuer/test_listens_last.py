"""The issuer opens its port when it is about to serve."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest

from tests.support.processes import ProcessFactory, free_port, is_listening

pytestmark = pytest.mark.processes
ROOT = Path(__file__).resolve().parents[3]

#: Notes whether the port takes connections when the application is imported.
_SITE = """
import os, socket, sys

class Finder:
    def find_spec(self, name, path=None, target=None):
        if name == "issuer.app":
            with socket.socket() as probe:
                refused = probe.connect_ex(("127.0.0.1", {port}))
            with open({note!r}, "a") as note:
                note.write("refused" if refused else "taken")
        return None

sys.meta_path.insert(0, Finder())
"""


def test_no_connection_waits_for_the_imports_of_a_start(tmp_path: Path) -> None:
    """On a busy machine they took 9 s, and clients waited in the queue of the port
    instead of asking another issuer.
    """
    port, key, note = free_port(), "A" * 43, tmp_path / "note"
    site = tmp_path / "site"
    site.mkdir()
    (site / "sitecustomize.py").write_text(_SITE.format(port=port, note=str(note)))
    env = {
        "PATH": os.environ["PATH"],
        "PYTHONPATH": f"{site}{os.pathsep}{ROOT}",
        "ISSUER_URL": f"http://127.0.0.1:{port}",
        "ISSUER_AUDIENCE": "api",
        "ISSUER_DATABASE_URL": f"sqlite+aiosqlite:///{tmp_path / 'issuer.db'}",
        "ISSUER_FEED_TOKEN": "f" * 40,
        "ISSUER_KEY_ENCRYPTION_KEYS": f"k1:{key}",
        "ISSUER_PASSWORD_PEPPERS": f"p1:{key}",
        "ISSUER_REFRESH_KEYS": f"r1:{key}",
        "ISSUER_BIND": f"127.0.0.1:{port}",
        "ISSUER_ADMIN_BIND": f"127.0.0.1:{free_port()}",
    }
    factory = ProcessFactory(tmp_path)
    try:
        factory.start(
            "issuer",
            (sys.executable, "-m", "issuer"),
            env=env,
            cwd=tmp_path,
            ready=lambda: is_listening(port),
        )
        assert note.read_text() == "refused"
    finally:
        factory.stop_all()
