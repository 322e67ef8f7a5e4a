"""One disk copy, open for writing and locked for as long as it is open."""

from __future__ import annotations

import contextlib
import fcntl
import os
from pathlib import Path
from typing import Any, Final, NamedTuple

import orjson

from verifier.disk.copy_format import (
    NEVER,
    TAG_SIZE,
    VERSION,
    Mark,
    Record,
    RecordKind,
    RecordReader,
    boot_digest,
    seal,
    seal_mark,
)
from verifier.disk.file_identity import identify

SUFFIX: Final = ".copy"
#: Suffix of an unfinished file; it does not count before it is renamed.
NEW_SUFFIX: Final = ".new"


class Identity(NamedTuple):
    """Identifies the writer of a copy, and the issuer that it is about.

    Attributes:
        key: made by `derive_key` from the feed token.
        issuer: the issuer's URL.
        follower: our id as a follower.
        boot: `boot_identity` of this process; empty when unknown.
    """

    key: bytes
    issuer: str
    follower: str
    boot: str


class CopyFile:
    """One copy, open for writing and locked for as long as it is open.

    Attributes:
        path: ends in `.new` before `publish`.
        length: bytes.
        mark: the mark as last written.
    """

    def __init__(
        self, path: Path, descriptor: int, key: bytes, reader: RecordReader, mark: Mark
    ) -> None:
        self.path = path
        self.descriptor = descriptor
        self.key = key
        self.length = reader.offset
        self._tag = reader.tag
        self.mark = mark

    @classmethod
    def create(cls, directory: Path, name: str, identity: Identity) -> CopyFile:
        """Make a new file with header and mark, under its temporary name.

        Raises:
            OSError: when it cannot be made.
        """
        path = directory / f"{name}{NEW_SUFFIX}"
        flags = os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW
        descriptor = os.open(path, flags, 0o600)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            # Another process may have removed it between its creation and the lock.
            if not os.path.samestat(os.stat(path), os.fstat(descriptor)):
                raise OSError(f"{path}: was replaced while it was being made")
            reader = RecordReader(descriptor, identity.key)
            mark = Mark(0, boot_digest(identity.boot))
            made = cls(path, descriptor, identity.key, reader, mark)
            made.append(
                RecordKind.HEADER,
                {
                    "version": VERSION,
                    "issuer": identity.issuer,
                    **identify(descriptor)._asdict(),
                },
            )
            made.set_mark()
        except BaseException:
            os.close(descriptor)
            with contextlib.suppress(OSError):
                path.unlink()
            raise
        return made

    def append(self, kind: RecordKind, content: Any) -> None:
        """Append one record; the mark does not cover it yet.

        Raises:
            OSError: when the write fails.
        """
        self.append_payload(kind, orjson.dumps(content, default=tuple))

    def append_payload(self, kind: RecordKind, payload: bytes) -> None:
        """Append one record with an encoded payload.

        Raises:
            OSError: when the write fails.
        """
        sealed = seal(self.key, self._tag, Record(kind, payload))
        _write_all(self.descriptor, sealed, self.length)
        self.length += len(sealed)
        self._tag = sealed[-TAG_SIZE:]

    def set_mark(self, **changes: Any) -> None:
        """Make the mark cover all records, and change the given times.

        It is one write within one page, so a signal does not split it.

        Raises:
            OSError: when the write fails.
        """
        mark = self.mark._replace(length=self.length, tag=self._tag, **changes)
        _write_all(self.descriptor, seal_mark(self.key, mark), 0)
        self.mark = mark

    def publish(self) -> None:
        """Rename the file to its final name, replacing an older one.

        Raises:
            OSError: when the rename fails.
        """
        target = self.path.with_suffix(SUFFIX)
        self.path.rename(target)
        self.path = target

    def destroy(self) -> bool:
        """Make the file unusable under any name; return whether that succeeded."""
        try:
            self.path.unlink()
        except OSError:
            return self._empty() or self.invalidate()
        return self.invalidate()

    def invalidate(self) -> bool:
        """Void the times in the mark; return whether no name of the file has an age.

        A hard link, or the file moved elsewhere, is the original when it is put back.
        With a mark of no boot it proves neither an age nor that its writer has ended.
        """
        never = dict.fromkeys(("asked_at", "fresh_until", "keys_asked_at"), NEVER)
        with contextlib.suppress(OSError):
            self.set_mark(boot=boot_digest(""), **never)
            return True
        return self._empty() or os.fstat(self.descriptor).st_nlink == 0

    def _empty(self) -> bool:
        with contextlib.suppress(OSError):
            os.ftruncate(self.descriptor, 0)
            return True
        return False

    def close(self) -> None:
        """Close the file, which releases its lock."""
        os.close(self.descriptor)


def _write_all(descriptor: int, content: bytes, offset: int) -> None:
    view = memoryview(content)
    while view:
        written = os.pwrite(descriptor, view, offset)
        view = view[written:]
        offset += written
