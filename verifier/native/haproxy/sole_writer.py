"""Lets one process at a time write into the directory of a HAProxy.

A second one would replace the maps of the workers by what it knows. When it is behind,
requests pass again whose revocation the first one has confirmed.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Final

#: The file whose lock the writer holds as long as it lives.
LOCK: Final = "gatehouse.lock"
DIRECTORY_MODE: Final = 0o750
#: A link is not followed, and a FIFO does not block.
_FLAGS: Final = os.O_RDWR | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC


class SecondWriterError(Exception):
    """Another process writes into the directory; the message has a remedy."""


@contextlib.contextmanager
def sole_writer(directory: Path) -> Iterator[None]:
    """Hold the lock of a directory while the context is open; it is made if missing.

    Raises:
        SecondWriterError: another process holds it.
        OSError: it cannot be made or locked.
    """
    directory.mkdir(mode=DIRECTORY_MODE, exist_ok=True)
    descriptor = os.open(directory / LOCK, _FLAGS | os.O_CREAT, 0o600)
    try:
        _lock(descriptor, directory)
        yield
    finally:
        os.close(descriptor)


def check_sole_writer(directory: Path) -> None:
    """Check that a process could write into a directory, without making anything.

    Raises:
        SecondWriterError: another process writes into it.
        OSError: it cannot be locked, or made.
    """
    if not directory.exists() and not directory.parent.is_dir():
        raise FileNotFoundError(f"{directory.parent} is not a directory")
    try:
        descriptor = os.open(directory / LOCK, _FLAGS)
    except FileNotFoundError:
        return
    try:
        _lock(descriptor, directory)
    finally:
        os.close(descriptor)


def _lock(descriptor: int, directory: Path) -> None:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        raise SecondWriterError(
            f"another `native haproxy` writes into {directory}, and one HAProxy has one "
            "writer; stop it first"
        ) from None
