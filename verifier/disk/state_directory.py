"""The directory of disk copies: who may take which file over.

A copy's lock is held by its writer for as long as it lives; who gets the lock knows that
the writer has ended. One process alone may rely on the age in a copy: the issuer's row of
the old writer covers it until the new one takes the row's place. So a file is taken over
by one process, for good, and what is read from files of the living has no age.

The copies lie in a directory of our own, mode 0700, within `VERIFIER_STATE_DIR`: that one
may be shared (an emptyDir of Kubernetes has mode 0777), and its mode is its owner's
business. Earlier versions kept them in `VERIFIER_STATE_DIR` itself; what they left
behind there is moved in.
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
from verifier.disk.copy_format import VERSION, CopyDamagedError, Kind, RecordReader
from verifier.disk.file_identity import FileIdentity, identify

_LOG: Final = logging.getLogger(__name__)
#: Our own directory within `VERIFIER_STATE_DIR`.
OWN_NAME: Final = "gatehouse-verifier"
_LOCK_NAME: Final = "directory.lock"
#: A planted FIFO must not hold us, nor a link lead us elsewhere.
_OPEN: Final = os.O_RDWR | os.O_NOFOLLOW | os.O_NONBLOCK
_OTHERS: Final = 0o077
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


class UnsafeDirectoryError(OSError):
    """Copies must not be kept there; the message says why, and what to do."""


def open_directory(state_dir: Path) -> Path:
    """Make our own directory within `state_dir`, and that one when it is missing.

    Raises:
        UnsafeDirectoryError: when something else than our directory is there.
        OSError: when it cannot be made or used.
    """
    own = state_dir / OWN_NAME
    check_directory(state_dir)
    state_dir.mkdir(mode=0o700, parents=True, exist_ok=True)
    own.mkdir(mode=0o700, exist_ok=True)
    check_directory(state_dir)
    mode = stat.S_IMODE(os.lstat(own).st_mode)
    if mode & _OTHERS:
        # Kubernetes opens what is in a volume to the pod's fsGroup at every start. The
        # directory is ours, and each file is looked at by itself (`_check_owner`).
        _close_to_others(own)
        event(
            _LOG, logging.WARNING, "copy.directory_was_open", path=own, mode=oct(mode)
        )
    return own


def check_directory(state_dir: Path) -> None:
    """Check that our own directory in `state_dir`, when there is one, is ours.

    In a directory that others may write in, they may have planted it: as a link to where
    we would write, or as theirs, whose files they choose.

    Raises:
        UnsafeDirectoryError: when it is not.
        OSError: when it cannot be looked at.
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
    """Check that we can make a directory in `state_dir`, or what it will be made in.

    What is made for that is removed: access(2) says yes of /proc, and to root of nearly
    everything.

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


async def find_copies(own: Path, identity: Identity, workers: int) -> list[Found]:
    """Open all copies of this issuer and take over our share of those left behind.

    Of the files whose writer has ended, each of `workers` processes gets one while there
    are enough, and the first gets what is over. A file that is not of this issuer is left
    as it is.

    Args:
        own: our own directory.
        identity: whose copies are ours.
        workers: how many processes share them.

    Raises:
        OSError: when the directory cannot be locked or read.
    """
    async with locked(own):
        older = await _find_older(own.parent, own, identity)
        return older + _take_share(own, identity, workers)


def _take_share(own: Path, identity: Identity, workers: int) -> list[Found]:
    _tidy(own)
    names = sorted(own.glob(f"*{SUFFIX}"), key=_modified_at, reverse=True)
    found = [copy for path in names if (copy := _open(path, identity))]
    free = [copy for copy in found if copy.is_ours]
    ours = set(free[:1] + free[max(1, workers) :])
    for copy in free:
        if copy not in ours:
            fcntl.flock(copy.descriptor, fcntl.LOCK_UN)
    return [copy._replace(is_ours=copy in ours) for copy in found]


async def _find_older(state_dir: Path, own: Path, identity: Identity) -> list[Found]:
    """Move in what earlier versions left behind in `state_dir`.

    A moved file is the same file: its identity, its lock and its age stay what they were.

    Returns:
        those that stay where they are, because their writer still lives or because they
        cannot be moved: their entries count and nothing else.
    """
    paths = _our_files(state_dir)
    if not paths:
        return []
    # A version that starts beside us sorts the files out under this lock. Another user's
    # file of that name, in a shared directory, is no such lock.
    if not _is_free_name(state_dir / _LOCK_NAME):
        return _move_all_in(paths, own, identity)
    async with locked(state_dir):
        return _move_all_in(paths, own, identity)


def _move_all_in(paths: list[Path], own: Path, identity: Identity) -> list[Found]:
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

    A header without an identity that a copy would not have (earlier versions wrote the
    inode number alone; some file systems tell no more) is of no original: fail closed.

    Raises:
        CopyDamagedError: when it is none of ours.
        OSError: when the file cannot be read.
    """
    reader = RecordReader(descriptor, key)
    for record in reader.records(os.fstat(descriptor).st_size):
        if record.kind is not Kind.HEADER:
            break
        header = orjson.loads(record.payload)
        if header["version"] != VERSION:
            break
        written = FileIdentity(*map(header.get, FileIdentity._fields))
        is_original = written.is_certain and written == identify(descriptor)
        return Header(header["issuer"], is_original)
    raise CopyDamagedError("there is no header that we know")


def _open(path: Path, identity: Identity) -> Found | None:
    """Open one file, locked when nobody else has it; None when it is not for us."""
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
        # Of another issuer, of another feed token, or damaged in its first bytes: not
        # ours to remove.
        event(_LOG, logging.WARNING, "copy.not_ours", path=path, error=str(error))
        return None
    is_free = _try_lock(descriptor) and _is_still_there(path, descriptor)
    return Found(path, descriptor, is_free, header.is_original and is_private)


def _check_owner(status: os.stat_result) -> bool:
    """Check that a file is our user's; return whether it is ours alone.

    Into one that is open to others an older state may have been written: its entries
    count, since they are sealed, and its age does not.

    Raises:
        CopyDamagedError: when it is another user's, or no file.
    """
    if not stat.S_ISREG(status.st_mode):
        raise CopyDamagedError("it is not a regular file")
    if status.st_uid != os.geteuid():
        raise CopyDamagedError(f"it belongs to user {status.st_uid}")
    return not status.st_mode & _OTHERS


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
            descriptor = os.open(path, _OPEN)
            try:
                if _try_lock(descriptor):
                    path.unlink()
            finally:
                os.close(descriptor)
