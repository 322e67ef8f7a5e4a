"""Records in memory that a parent shares with the processes it forks.

No file is involved, so a removed directory or a full disk cannot matter, and nothing is
left behind. Each record is stored twice: if a process is killed while it writes, the
previous record remains.
"""

from __future__ import annotations

import mmap
import struct
import zlib
from typing import Final, NamedTuple

#: Length of the payload, sequence, stamp, pid.
_FIELDS: Final = struct.Struct("<QQdQ")
_CHECKSUM: Final = struct.Struct("<I")
_HEADER_SIZE: Final = _CHECKSUM.size + _FIELDS.size
#: A record is torn only while it is written, and each writer writes once a second.
_LOOKS: Final = 5


class Record(NamedTuple):
    """A record of one process.

    Attributes:
        sequence: one more than that of the previous record.
        stamp: monotonic seconds at the writer.
        pid: of the writer.
        payload: the content.
    """

    sequence: int
    stamp: float
    pid: int
    payload: bytes


class WorkerRecords:
    """A number of records; made before the workers are forked.

    Args:
        count: how many records.
        size: the largest payload, bytes. Memory that is not written is not taken.
    """

    def __init__(self, count: int, size: int) -> None:
        self._half_size = _HEADER_SIZE + size
        self._memory = mmap.mmap(-1, 2 * count * self._half_size)

    def write(self, index: int, stamp: float, pid: int, payload: bytes) -> None:
        """Replace a record; the previous one stays readable until this one is complete.

        Two processes that write one record at once may spoil it. It then reads as the
        previous one or as none.

        Raises:
            ValueError: when the payload is larger than `size`.
        """
        if _HEADER_SIZE + len(payload) > self._half_size:
            raise ValueError("the payload is larger than a record")
        halves = [self._read_half(2 * index + half) for half in (0, 1)]
        sequences = [half.sequence if half else 0 for half in halves]
        target = 2 * index + (sequences[0] > sequences[1])
        fields = _FIELDS.pack(len(payload), max(sequences) + 1, stamp, pid)
        checksum = _CHECKSUM.pack(zlib.crc32(payload, zlib.crc32(fields)))
        start = target * self._half_size
        written = checksum + fields + payload
        self._memory[start : start + len(written)] = written

    def read(self, index: int) -> Record | None:
        """Return the newest complete record; None when there is none."""
        for _ in range(_LOOKS):
            halves = [self._read_half(2 * index + half) for half in (0, 1)]
            found = [half for half in halves if half is not None]
            if found:
                return max(found, key=lambda record: record.sequence)
            if self._is_unwritten(index):
                return None
        return None

    def _is_unwritten(self, index: int) -> bool:
        start = 2 * index * self._half_size
        return not any(self._memory[start : start + _HEADER_SIZE])

    def _read_half(self, half: int) -> Record | None:
        start = half * self._half_size
        fields = self._memory[start + _CHECKSUM.size : start + _HEADER_SIZE]
        length = _FIELDS.unpack(fields)[0]
        if not any(fields) or length > self._half_size - _HEADER_SIZE:
            return None
        whole = self._memory[start : start + _HEADER_SIZE + length]
        if (
            zlib.crc32(memoryview(whole)[_CHECKSUM.size :])
            != _CHECKSUM.unpack_from(whole)[0]
        ):
            return None
        _, sequence, stamp, pid = _FIELDS.unpack_from(whole, _CHECKSUM.size)
        return Record(sequence, stamp, pid, whole[_HEADER_SIZE:])
