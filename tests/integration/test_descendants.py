"""Processes of a machine may have any name; those of a test are still found."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

from tests.support.processes import descendants, is_alive, wait_until


def test_process_whose_name_is_no_utf8_hides_no_other(tmp_path: Path) -> None:
    """Else every stop of a program failed while such a process ran anywhere."""
    program = os.fsencode(tmp_path) + b"/\xff"
    os.symlink("/bin/sleep", program)
    with subprocess.Popen([program, "60"]) as process:
        try:
            name = Path(f"/proc/{process.pid}/comm")
            wait_until(lambda: name.read_bytes() == b"\xff\n", what="its name")
            assert process.pid in descendants(os.getpid())
            assert is_alive(process.pid)
        finally:
            process.kill()
