"""Reading a small file that an operator names: bounded, UTF-8, and never blocking."""

from __future__ import annotations

import errno
import os
import stat
from typing import Final

#: Bytes that are read at most: the limit of a Kubernetes Secret.
MAX_BYTES: Final = 1_048_576
_NO_FILE: Final = frozenset({errno.ENOENT, errno.ENOTDIR, errno.ENAMETOOLONG})


class UnreadableFileError(ValueError):
    """A file exists but is unusable; the message has the reason, not the path."""


def read_text(path: str | os.PathLike[str], *, may_be_pipe: bool = False) -> str:
    """Return a file's text, without a byte order mark at its start.

    Args:
        path: relative paths count from the working directory; links are followed.
        may_be_pipe: whether a pipe is read, until its other side closes it.

    Raises:
        FileNotFoundError: there is no such file.
        UnreadableFileError: it may not be read, is not a file, is larger than
            `MAX_BYTES` or is not UTF-8.
    """
    try:
        content = _read(path, may_be_pipe)
    except PermissionError:
        raise UnreadableFileError("may not be read by this user") from None
    except OSError as error:
        if error.errno in _NO_FILE:
            raise FileNotFoundError from None
        reason = os.strerror(error.errno or 0)
        raise UnreadableFileError(f"cannot be read ({reason})") from None
    if len(content) > MAX_BYTES:
        raise UnreadableFileError(f"is larger than {MAX_BYTES} bytes")
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError:
        raise UnreadableFileError("is not UTF-8") from None


def _read(path: str | os.PathLike[str], may_be_pipe: bool) -> bytes:
    # Without O_NONBLOCK the open waits on a pipe that no program writes to, before it
    # is known to be a pipe.
    flags = os.O_RDONLY | os.O_CLOEXEC | (0 if may_be_pipe else os.O_NONBLOCK)
    descriptor = os.open(path, flags)
    try:
        mode = os.fstat(descriptor).st_mode
        if stat.S_ISDIR(mode):
            raise UnreadableFileError("is a directory")
        if not stat.S_ISREG(mode) and not (may_be_pipe and stat.S_ISFIFO(mode)):
            raise UnreadableFileError("is not a regular file")
        with os.fdopen(descriptor, "rb", closefd=False) as file:
            return file.read(MAX_BYTES + 1)
    finally:
        os.close(descriptor)
