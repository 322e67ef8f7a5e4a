"""The identity of an open file, which a copy of the file does not have.

Inode numbers are reused: ext4 gives a new file the lowest free one, so a directory that
was copied away and back has the numbers of the original. The generation of an inode and
its time of birth are new for every file. Without either, the identity is not certain.
"""

from __future__ import annotations

import ctypes
import fcntl
import os
import struct
from collections.abc import Callable
from functools import cache
from typing import Any, Final, NamedTuple

#: `_IOR('v', 1, long)` of linux/fs.h on all but a few old machines; no file system has
#: an ioctl of another number. The kernel writes 4 bytes, although the name says `long`.
_GET_GENERATION: Final = 0x80007601 | struct.calcsize("l") << 16
#: Of linux/stat.h: `statx(descriptor, "", AT_EMPTY_PATH, STATX_BTIME, buffer)`.
_AT_EMPTY_PATH: Final = 0x1000
_STATX_BTIME: Final = 0x800
_STATX_SIZE: Final = 256
_STATX_MASK: Final = struct.Struct("=I")
#: Offset and form of `stx_btime`: seconds and nanoseconds.
_STATX_BORN: Final = (80, struct.Struct("=qI"))


class FileIdentity(NamedTuple):
    """Identifies one file for as long as it exists.

    Attributes:
        device: of the file system.
        inode: its number there.
        generation: of the inode; None where the file system has none.
        born: its time of birth, nanoseconds of the wall clock; None where the file
            system has none.
    """

    device: int
    inode: int
    generation: int | None = None
    born: int | None = None

    @property
    def is_certain(self) -> bool:
        """Whether a copy of the file would have another identity."""
        return self.generation is not None or self.born is not None


def identify(descriptor: int) -> FileIdentity:
    """Return the identity of an open file.

    Raises:
        OSError: when the file cannot be examined.
    """
    status = os.fstat(descriptor)
    return FileIdentity(
        status.st_dev, status.st_ino, _generation(descriptor), _born(descriptor)
    )


def _generation(descriptor: int) -> int | None:
    buffer = bytearray(struct.calcsize("l"))
    try:
        fcntl.ioctl(descriptor, _GET_GENERATION, buffer)
    except OSError:  # ENOTTY: a file system without generations
        return None
    return int(struct.unpack_from("=I", buffer)[0])


def _born(descriptor: int) -> int | None:
    statx = _find_statx()
    buffer = ctypes.create_string_buffer(_STATX_SIZE)
    if statx is None or statx(descriptor, b"", _AT_EMPTY_PATH, _STATX_BTIME, buffer):
        return None
    if not _STATX_MASK.unpack_from(buffer)[0] & _STATX_BTIME:
        return None
    offset, form = _STATX_BORN
    seconds, nanoseconds = form.unpack_from(buffer, offset)
    return int(seconds * 1_000_000_000 + nanoseconds)


@cache
def _find_statx() -> Callable[..., int] | None:
    """Return the C library's `statx`: Python has none before 3.15."""
    library: Any = ctypes.CDLL(None)
    try:
        statx: Callable[..., int] = library.statx
    except AttributeError:  # glibc before 2.28
        return None
    return statx
