"""Small disks in memory, and files that cannot be written.

Both need the right to mount. Without it a test is skipped, and in CI it fails: a test
that did not run must not look like one that passed.
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
    try:
        _mount("-t", "tmpfs", "-o", f"size={size},mode=755", "tmpfs", str(disk))
    except BaseException:
        disk.rmdir()
        raise
    try:
        if owner is not None:
            (disk / "space").mkdir()
            account = pwd.getpwnam(owner)
            os.chown(disk / "space", account.pw_uid, account.pw_gid)
        yield disk
    finally:
        # Lazily: files left open by a failed test must not keep it.
        subprocess.run(["umount", "-l", str(disk)], check=True)
        disk.rmdir()


@contextmanager
def read_only(path: Path) -> Iterator[None]:
    """Keep this file from being written within the context; even root cannot."""
    _mount("--bind", str(path), str(path))
    try:
        _mount("-o", "remount,bind,ro", str(path))
        yield
    finally:
        subprocess.run(["umount", str(path)], check=True)


def _mount(*arguments: str) -> None:
    mounted = subprocess.run(
        ["mount", *arguments], capture_output=True, text=True, check=False
    )
    if mounted.returncode != 0:
        if os.environ.get("CI") == "true":
            pytest.fail(f"CI needs the right to mount: {mounted.stderr}")
        pytest.skip(f"no right to mount here: {mounted.stderr}")
