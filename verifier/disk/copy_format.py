"""The format of the disk copy: one file per worker, every byte covered by a tag.

A file is a mark of fixed size, followed by records:

    mark    magic, length, digest of the boot, four times, tag of the record that
            ends at `length`, HMAC of all these; rewritten in place
    record  4 bytes length of the payload, 1 byte kind, payload, 32 bytes tag;
            only ever appended

Each tag is the HMAC-SHA256 of the previous tag and the record. A record that was
changed, moved, left out or taken from another file breaks the chain, and the rest of
the file does not count. A chain cannot show that its end was cut off; the mark can,
because it holds the length that was acknowledged to the issuer. The key is derived from
the feed token, so only a verifier of this issuer can have written the file.

No format can detect an older state of the same file that was written back in place. So
only the owner may use the directory. A file restored under its name is another file:
its inode has another generation or another time of birth.
"""

from __future__ import annotations

import hashlib
import hmac
import os
import struct
from collections.abc import Iterator
from enum import IntEnum
from typing import Final, NamedTuple

MAGIC: Final = b"GHCOPY1\n"
VERSION: Final = 1
TAG_SIZE: Final = 32
#: A longer record is damage: a flipped bit in a length must not cause a huge read.
MAX_PAYLOAD: Final = 16 * 1_048_576
NEVER: Final = float("-inf")

_LABEL: Final = b"gatehouse verifier disk copy 1"
_FRAME: Final = struct.Struct(">IB")
_MARK: Final = struct.Struct(">8sQ16sdddd32s")
MARK_SIZE: Final = _MARK.size + TAG_SIZE
#: The tag before the first record.
START: Final = bytes(TAG_SIZE)


class CopyDamagedError(Exception):
    """A disk copy was changed or cut off; the message has the place."""


class RecordKind(IntEnum):
    """The kinds of records; every payload is JSON."""

    HEADER = 1  #: {"version", "issuer", ...the file's identity}, first and once
    #: {"follower", "replaces", "has_list"}: the writer from here on. Both first members
    #: are empty where its lease must not be ended by the next one.
    WRITER = 2
    ENTRIES = 3  #: rows [seq, kind, key, minimum_generation, prune_at]
    POSITION = 4  #: {"epoch", "position"}: all entries up to it are before this record
    KEYS = 5  #: {"jwks"}: the body of the JWKS as text


class Record(NamedTuple):
    """One record with a verified tag."""

    kind: RecordKind
    payload: bytes


class Mark(NamedTuple):
    """How much of the file counts, and until when.

    Attributes:
        length: bytes of the file when the mark was set; the file is never shorter.
        boot: digest of the boot that the boot-time seconds belong to.
        asked_at: boot-time seconds at which the last complete answer was asked for.
        fresh_until: boot-time seconds until which it counts, by the bound of the
            process that asked.
        keys_asked_at: boot-time seconds at which the keys were last asked for.
        keys_wall: the same in Unix seconds, for another boot.
        tag: of the record that ends at `length`.
    """

    length: int
    boot: bytes
    asked_at: float = NEVER
    fresh_until: float = NEVER
    keys_asked_at: float = NEVER
    keys_wall: float = NEVER
    tag: bytes = START


def derive_key(feed_token: str) -> bytes:
    """Return the key of this issuer's copies."""
    return hmac.digest(feed_token.encode(), _LABEL, "sha256")


def boot_digest(identity: str) -> bytes:
    """Return the 16 bytes that identify a boot in a mark; zeros when it is unknown."""
    return hashlib.sha256(identity.encode()).digest()[:16] if identity else bytes(16)


def seal(key: bytes, previous: bytes, record: Record) -> bytes:
    """Return the bytes of a record; the last `TAG_SIZE` of them are its tag."""
    frame = _FRAME.pack(len(record.payload), record.kind) + record.payload
    return frame + hmac.digest(key, previous + frame, "sha256")


def seal_mark(key: bytes, mark: Mark) -> bytes:
    """Return the bytes of a mark."""
    packed = _MARK.pack(MAGIC, *mark)
    return packed + hmac.digest(key, packed, "sha256")


def read_mark(descriptor: int, key: bytes) -> Mark:
    """Read the file's mark.

    Raises:
        CopyDamagedError: when it is not ours, or not whole.
    """
    read = os.pread(descriptor, MARK_SIZE, 0)
    packed, tag = read[: _MARK.size], read[_MARK.size :]
    if len(read) != MARK_SIZE or not hmac.compare_digest(
        hmac.digest(key, packed, "sha256"), tag
    ):
        raise CopyDamagedError("the mark is not whole, or not ours")
    magic, *fields = _MARK.unpack(packed)
    if magic != MAGIC:
        raise CopyDamagedError("the mark is of another version")
    return Mark(*fields)


class RecordReader:
    """Reads records one by one, and verifies each before it is returned.

    Attributes:
        offset: where the next record begins.
        tag: of the last record read.
    """

    def __init__(self, descriptor: int, key: bytes) -> None:
        self._descriptor = descriptor
        self._key = key
        self.offset = MARK_SIZE
        self.tag = START

    def records(self, end: int) -> Iterator[Record]:
        """Yield the records up to the offset `end`.

        Raises:
            CopyDamagedError: at the first byte that no tag covers.
        """
        while self.offset < end:
            yield self._next(end)

    def _next(self, end: int) -> Record:
        where = f"record at {self.offset}"
        head = os.pread(self._descriptor, _FRAME.size, self.offset)
        if len(head) < _FRAME.size:
            raise CopyDamagedError(f"{where}: cut off")
        size, number = _FRAME.unpack(head)
        whole = _FRAME.size + size + TAG_SIZE
        if size > MAX_PAYLOAD or self.offset + whole > end:
            raise CopyDamagedError(f"{where}: cut off")
        read = os.pread(self._descriptor, whole, self.offset)
        frame, tag = read[:-TAG_SIZE], read[-TAG_SIZE:]
        expected = hmac.digest(self._key, self.tag + frame, "sha256")
        if len(read) != whole or not hmac.compare_digest(expected, tag):
            raise CopyDamagedError(f"{where}: does not follow the one before it")
        try:
            record = Record(RecordKind(number), frame[_FRAME.size :])
        except ValueError:
            raise CopyDamagedError(f"{where}: of an unknown kind") from None
        self.offset += whole
        self.tag = tag
        return record
