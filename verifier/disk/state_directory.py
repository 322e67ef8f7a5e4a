"""The directory of disk copies, and which process takes over which file.

The writer of a copy holds its lock as long as it lives, so a process that gets the lock
can rely on the writer's end. Only one process may rely on the age in a copy: the
issuer's row of the old writer covers it until the new writer replaces that row. So one
process takes over a file for good, and files of living writers have no age for others.

The copies are in a directory of our own, mode 0700, within `VERIFIER_STATE_DIR`. That
one may be shared (an emptyDir of Kubernetes has mode 0777), and its mode is up to its
owner. Earlier versions kept the copies in `VERIFIER_STATE_DIR` itself; those are moved.
"""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import logging
import os
import stat
import tempfile
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Final, NamedTuple

import orjson

from shared.log import event
from verifier.disk.copy_file import NEW_SUFFIX, SUFFIX, Identity
from verifier.disk.copy_format import (
    VERSION,
    CopyDamagedError,
    RecordKind,
    RecordReader,
)
from verifier.disk.file_identity import FileIdentity, identify

_LOG: Final = logging.getLogger(__name__)
#: Our own directory within `VERIFIER_STATE_DIR`.
OWN_NAME: Final = "gatehouse-verifier"
_LOCK_NAME: Final = "directory.lock"
#: A planted FIFO must not block us, and a planted link must not be followed.
_OPEN: Final = os.O_RDWR | os.O_NOFOLLOW | os.O_NONBLOCK
_OTHERS: Final = 0o077
#: Seconds to wait for other workers that take over files at the same time.
_LOCK_TIMEOUT: Final = 5.0
_LOCK_INTERVAL: Final = 0.01


class Header(NamedTuple):
    """The first record of a copy, and whether the file is the one it was written to."""

    issuer: str
    is_original: bool


class FoundCopy(NamedTuple):
    """A copy in the directory, open.

    Attributes:
        path: its path.
        descriptor: locked by us when `is_ours`.
        is_ours: its writer has ended, and we have taken it over.
        is_original: it is the file that was written, not a copy of it.
    """

    path: Path
    descriptor: int
    is_ours: bool
    is_original: bool


class UnsafeDirectoryError(OSError):
    """The directory must not hold copies; the message has the reason and a remedy."""


def open_directory(state_dir: Path) -> Path:
    """Make our own directory within `state_dir`, and `state_dir` if it is missing.

    Raises:
        UnsafeDirectoryError: when the name is taken by something that is not ours.
        OSError: when it cannot be made or used.
    """
    own = state_dir / OWN_NAME
    check_directory(state_dir)
    state_dir.mkdir(mode=0o700, parents=True, exist_ok=True)
    own.mkdir(mode=0o700, exist_ok=True)
    check_directory(state_dir)
    mode = stat.S_IMODE(os.lstat(own).st_mode)
    if mode & _OTHERS:
        # Kubernetes opens a volume's content to the pod's fsGroup at every start. The
        # directory is ours, and each file is checked by itself (`_check_owner`).
        _close_to_others(own)
        event(
            _LOG, logging.WARNING, "copy.directory_was_open", path=own, mode=oct(mode)
        )
    return own


def check_directory(state_dir: Path) -> None:
    """Check that our own directory in `state_dir`, when there is one, is ours.

    Other users who may write in `state_dir` may have planted it: as a link to a place
    where we would write, or as a directory with files of their choice.

    Raises:
        UnsafeDirectoryError: when it is not ours.
        OSError: when it cannot be examined.
    """
    own = state_dir / OWN_NAME
    try:
        status = os.lstat(own)
    except FileNotFoundError:
        return
    us = os.geteuid()
    if not stat.S_ISDIR(status.st_mode):
        fault = "is a link or a file, not a directory"
    elif status.st_uid != us:
        fault = f"belongs to user {status.st_uid}, and the verifier runs as user {us}"
    else:
        return
    raise UnsafeDirectoryError(f"{own} {fault}; remove it, or name another directory")


def _close_to_others(own: Path) -> None:
    descriptor = os.open(own, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
    try:
        os.fchmod(descriptor, 0o700)
    finally:
        os.close(descriptor)


def check_writable(state_dir: Path) -> None:
    """Check that we can make a directory in `state_dir`, or in its nearest parent.

    It makes one and removes it, because access(2) succeeds for /proc, and for root
    nearly everywhere.

    Raises:
        OSError: when we cannot, naming the directory and the user.
    """
    nearest = state_dir / OWN_NAME
    while not nearest.exists() and nearest != nearest.parent:
        nearest = nearest.parent
    if not nearest.is_dir():
        raise NotADirectoryError(f"{nearest} is not a directory")
    try:
        tempfile.TemporaryDirectory(prefix=".gatehouse-check-", dir=nearest).cleanup()
    except OSError as error:
        raise OSError(
            f"user {os.geteuid()} cannot make a directory in {nearest}: "
            f"{error.strerror}"
        ) from None


@contextlib.asynccontextmanager
async def locked(
    directory: Path, max_wait: float = _LOCK_TIMEOUT
) -> AsyncIterator[None]:
    """Hold the directory's lock; wait up to `max_wait` seconds for other workers.

    Raises:
        OSError: when the lock cannot be taken, or not in time.
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


async def find_copies(own: Path, identity: Identity, workers: int) -> list[FoundCopy]:
    """Open all copies of this issuer, and take over our share of the abandoned ones.

    Each of `workers` processes takes one file whose writer has ended, while there are
    enough; the first process takes the rest. Files of other issuers are not touched.

    Args:
        own: our own directory.
        identity: identifies our copies.
        workers: the number of processes that share them.

    Raises:
        OSError: when the directory cannot be locked or read.
    """
    async with locked(own):
        older = await _find_older(own.parent, own, identity)
        return older + _take_share(own, identity, workers)


def _take_share(own: Path, identity: Identity, workers: int) -> list[FoundCopy]:
    _tidy(own)
    names = sorted(own.glob(f"*{SUFFIX}"), key=_modified_at, reverse=True)
    found = [copy for path in names if (copy := _open(path, identity))]
    free = [copy for copy in found if copy.is_ours]
    ours = set(free[:1] + free[max(1, workers) :])
    for copy in free:
        if copy not in ours:
            fcntl.flock(copy.descriptor, fcntl.LOCK_UN)
    return [copy._replace(is_ours=copy in ours) for copy in found]


async def _find_older(
    state_dir: Path, own: Path, identity: Identity
) -> list[FoundCopy]:
    """Move the copies of earlier versions from `state_dir` to our own directory.

    A moved file is the same file: its identity, its lock and its age do not change.

    Returns:
        the copies that were not moved, because their writer still lives or the move
        failed. Only their entries count.
    """
    paths = _our_files(state_dir)
    if not paths:
        return []
    # An earlier version that starts at the same time takes this lock. A file of that
    # name that belongs to another user, in a shared directory, is no such lock.
    if not _is_free_name(state_dir / _LOCK_NAME):
        return _move_all_in(paths, own, identity)
    async with locked(state_dir):
        return _move_all_in(paths, own, identity)


def _move_all_in(paths: list[Path], own: Path, identity: Identity) -> list[FoundCopy]:
    staying = []
    for path in paths:
        copy = _open(path, identity)
        if copy is None:
            continue
        if copy.is_ours and _move_in(path, own):
            os.close(copy.descriptor)
        else:
            staying.append(copy._replace(is_ours=False))
    return staying


def _move_in(path: Path, own: Path) -> bool:
    try:
        path.rename(own / path.name)
    except OSError as error:
        event(_LOG, logging.WARNING, "copy.not_moved", path=path, error=str(error))
        return False
    event(_LOG, logging.INFO, "copy.moved_in", path=path)
    return True


def _our_files(state_dir: Path) -> list[Path]:
    return [path for path in state_dir.glob(f"*{SUFFIX}") if _is_our_file(path)]


def _is_free_name(path: Path) -> bool:
    return _is_our_file(path) or not os.path.lexists(path)


def _is_our_file(path: Path) -> bool:
    try:
        status = os.lstat(path)
    except OSError:
        return False
    return stat.S_ISREG(status.st_mode) and status.st_uid == os.geteuid()


def read_header(descriptor: int, key: bytes) -> Header:
    """Read the first record of a copy.

    A header without a certain identity is not of an original, which fails closed.
    Earlier versions wrote the inode number only, and some file systems have nothing
    more.

    Raises:
        CopyDamagedError: when it is not ours.
        OSError: when the file cannot be read.
    """
    reader = RecordReader(descriptor, key)
    for record in reader.records(os.fstat(descriptor).st_size):
        if record.kind is not RecordKind.HEADER:
            break
        header = orjson.loads(record.payload)
        if header["version"] != VERSION:
            break
        written = FileIdentity(*map(header.get, FileIdentity._fields))
        is_original = written.is_certain and written == identify(descriptor)
        return Header(header["issuer"], is_original)
    raise CopyDamagedError("there is no header that we know")


def _open(path: Path, identity: Identity) -> FoundCopy | None:
    """Open one file, and lock it if its lock is free; None when it is not ours."""
    try:
        descriptor = os.open(path, _OPEN)
    except OSError as error:
        event(_LOG, logging.WARNING, "copy.not_opened", path=path, error=str(error))
        return None
    try:
        is_private = _check_owner(os.fstat(descriptor))
        header = read_header(descriptor, identity.key)
        if header.issuer != identity.issuer:
            raise CopyDamagedError("it is another issuer's")
    except CopyDamagedError as error:
        os.close(descriptor)
        # Another issuer's, of another feed token, or damaged in its first bytes. It may
        # not be ours, so it is not removed.
        event(_LOG, logging.WARNING, "copy.not_ours", path=path, error=str(error))
        return None
    is_free = _try_lock(descriptor) and _is_still_there(path, descriptor)
    return FoundCopy(path, descriptor, is_free, header.is_original and is_private)


def _check_owner(status: os.stat_result) -> bool:
    """Check that a file belongs to our user; return whether others have no access.

    Others may have written an older state into a file that is open to them. Its entries
    count, because they are sealed; its age does not.

    Raises:
        CopyDamagedError: when it is another user's, or not a regular file.
    """
    if not stat.S_ISREG(status.st_mode):
        raise CopyDamagedError("it is not a regular file")
    if status.st_uid != os.geteuid():
        raise CopyDamagedError(f"it belongs to user {status.st_uid}")
    return not status.st_mode & _OTHERS


def _is_still_there(path: Path, descriptor: int) -> bool:
    """Return whether the name still means this file.

    A living writer may have compacted between our open and our lock. The lock of the
    old file is free then, although its writer has not ended.
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
    """Remove unfinished files that no process has locked."""
    for path in directory.glob(f"*{NEW_SUFFIX}"):
        with contextlib.suppress(OSError):
            descriptor = os.open(path, _OPEN)
            try:
                if _try_lock(descriptor):
                    path.unlink()
            finally:
                os.close(descriptor)
