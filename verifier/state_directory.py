"""The directory of disk copies: who may take which file over.

A copy's lock is held by its writer for as long as it lives; who gets the lock knows that
the writer has ended. One process alone may rely on the age in a copy: the issuer's row of
the old writer covers it until the new one takes the row's place. So a file is taken over
by one process, for good, and what is read from files of the living has no age.
"""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import logging
import os
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Final, NamedTuple

import orjson

from shared.log import event
from verifier.copy_file import NEW_SUFFIX, SUFFIX, Identity
from verifier.copy_format import (
    VERSION,
    CopyDamagedError,
    Kind,
    RecordReader,
)

_LOG: Final = logging.getLogger(__name__)
_LOCK_NAME: Final = "directory.lock"
#: Seconds to wait for the other workers that sort out the files as well.
_LOCK_TIMEOUT: Final = 5.0
_LOCK_INTERVAL: Final = 0.01


class Header(NamedTuple):
    """The first record of a copy, and whether the file is the one it was written to."""

    issuer: str
    is_original: bool


class Found(NamedTuple):
    """A copy in the directory, open.

    Attributes:
        path: where it lies.
        descriptor: locked by us when `is_ours`.
        is_ours: its writer has ended, and we have taken it over.
        is_original: it is no copy of the file that was written.
    """

    path: Path
    descriptor: int
    is_ours: bool
    is_original: bool


def open_directory(path: Path) -> None:
    """Make the directory, or make it ours alone when it was there.

    Raises:
        OSError: when it cannot be made or used.
    """
    path.mkdir(mode=0o700, parents=True, exist_ok=True)
    if path.stat().st_mode & 0o077:
        # Who may write here may leave us files to read; who may read, learns who
        # logged out.
        path.chmod(0o700)


@contextlib.asynccontextmanager
async def locked(
    directory: Path, max_wait: float = _LOCK_TIMEOUT
) -> AsyncIterator[None]:
    """Keep other starting workers from the files; wait for them `max_wait` seconds.

    Raises:
        OSError: when the lock is not to be had, or not in time.
    """
    flags = os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW
    descriptor = os.open(directory / _LOCK_NAME, flags, 0o600)
    try:
        for _ in range(1 + int(max_wait / _LOCK_INTERVAL)):
            if _try_lock(descriptor):
                break
            await asyncio.sleep(_LOCK_INTERVAL)
        else:
            raise TimeoutError("another worker holds the directory's lock")
        yield
    finally:
        os.close(descriptor)


def find_copies(directory: Path, identity: Identity, workers: int) -> list[Found]:
    """Open all copies of this issuer and take over our share of those left behind.

    The directory must be locked. Of the files whose writer has ended, each of `workers`
    processes gets one while there are enough, and the first gets what is over. A file
    that is not of this issuer is left as it is.

    Raises:
        OSError: when the directory cannot be read.
    """
    _tidy(directory)
    names = sorted(directory.glob(f"*{SUFFIX}"), key=_modified_at, reverse=True)
    found = [copy for path in names if (copy := _open(path, identity))]
    free = [copy for copy in found if copy.is_ours]
    ours = set(free[:1] + free[max(1, workers) :])
    for copy in free:
        if copy not in ours:
            fcntl.flock(copy.descriptor, fcntl.LOCK_UN)
    return [copy._replace(is_ours=copy in ours) for copy in found]


def read_header(reader: RecordReader, status: os.stat_result) -> Header:
    """Read the first record of a copy.

    Raises:
        CopyDamagedError: when it is none of ours.
    """
    for record in reader.records(status.st_size):
        if record.kind is not Kind.HEADER:
            break
        header = orjson.loads(record.payload)
        if header["version"] != VERSION:
            break
        is_original = (header["device"], header["inode"]) == (
            status.st_dev,
            status.st_ino,
        )
        return Header(header["issuer"], is_original)
    raise CopyDamagedError("there is no header that we know")


def _open(path: Path, identity: Identity) -> Found | None:
    """Open one file, locked when nobody else has it; None when it is not for us."""
    try:
        descriptor = os.open(path, os.O_RDWR | os.O_NOFOLLOW)
    except OSError as error:
        event(_LOG, logging.WARNING, "copy.not_opened", path=path, error=str(error))
        return None
    try:
        header = read_header(
            RecordReader(descriptor, identity.key), os.fstat(descriptor)
        )
        if header.issuer != identity.issuer:
            raise CopyDamagedError("it is another issuer's")
    except CopyDamagedError as error:
        os.close(descriptor)
        # Of another issuer, of another feed token, or damaged in its first bytes: not
        # ours to remove.
        event(_LOG, logging.WARNING, "copy.not_ours", path=path, error=str(error))
        return None
    is_free = _try_lock(descriptor) and _is_still_there(path, descriptor)
    return Found(path, descriptor, is_free, header.is_original)


def _is_still_there(path: Path, descriptor: int) -> bool:
    """Tell whether the name still means this file.

    A living writer that compacted between our opening and our locking has let go of the
    old file: its lock is free, and its writer has not ended.
    """
    with contextlib.suppress(OSError):
        return os.path.samestat(os.stat(path), os.fstat(descriptor))
    return False


def _try_lock(descriptor: int) -> bool:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _modified_at(path: Path) -> float:
    with contextlib.suppress(OSError):
        return path.stat().st_mtime
    return 0.0


def _tidy(directory: Path) -> None:
    """Remove files that were never finished, unless somebody is at it."""
    for path in directory.glob(f"*{NEW_SUFFIX}"):
        with contextlib.suppress(OSError):
            descriptor = os.open(path, os.O_RDWR | os.O_NOFOLLOW)
            try:
                if _try_lock(descriptor):
                    path.unlink()
            finally:
                os.close(descriptor)
