"""A small disk in memory, to be filled.

Needs the right to mount. Without it a test is skipped, and in CI it fails: what nobody
ran must not look green.
"""

from __future__ import annotations

import os
import pwd
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest


@contextmanager
def small_disk(size: str, owner: str | None = None) -> Iterator[Path]:
    """Give an empty disk; it is gone at the end.

    Args:
        size: as tmpfs takes it.
        owner: the user of a folder `space` in it.
    """
    disk = Path(tempfile.mkdtemp(prefix="gatehouse-disk-"))
    disk.chmod(0o755)
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", f"size={size},mode=755", "tmpfs", str(disk)],
        capture_output=True,
        text=True,
        check=False,
    )
    if mounted.returncode != 0:
        disk.rmdir()
        if os.environ.get("CI") == "true":
            pytest.fail(f"CI needs the right to mount: {mounted.stderr}")
        pytest.skip(f"no right to mount here: {mounted.stderr}")
    try:
        if owner is not None:
            (disk / "space").mkdir()
            account = pwd.getpwnam(owner)
            os.chown(disk / "space", account.pw_uid, account.pw_gid)
        yield disk
    finally:
        # Lazily: what a failed test left open must not keep it.
        subprocess.run(["umount", "-l", str(disk)], check=True)
        disk.rmdir()
