"""One record per worker, in memory shared by all workers of this verifier.

Any worker may answer the operators' port, and answers for all. A gateway cannot choose
its worker, so one that is not ready makes the verifier not ready. A worker that hangs
stops writing, and the times in its last record expire.
"""

from __future__ import annotations

import mmap
import struct
import zlib
from typing import Final, NamedTuple

from shared.shortages import DESCRIPTORS_EXHAUSTED, LOG_LINES_DROPPED

_RECORD: Final = struct.Struct("<QQddQ???????64s")
_CHECKSUM: Final = struct.Struct("<I")
_SLOT_SIZE: Final = 128
#: A worker could not use the policy file, and answers by an earlier one.
POLICY_FILE_DIFFERS: Final = "policy_file_differs"
#: There is no gateway for a worker to write into.
NATIVE_GATEWAY_MISSING: Final = "native_gateway_missing"
#: A gateway cannot be written into, or is kept closed.
NATIVE_GATEWAY_FAILING: Final = "native_gateway_failing"
#: The gRPC server of a worker does not answer.
GRPC_SILENT: Final = "grpc_silent"
#: Attempts to read a record: it is torn only while it is copied.
_LOOKS: Final = 5


class WorkerState(NamedTuple):
    """The state of one worker.

    Attributes:
        pid: its process; 0 for none.
        is_loading: it is still reading its disk copy.
        position: the feed position that it has applied.
        fresh_until: boot-time seconds.
        keys_until: boot-time seconds.
        entries: revocations in force.
        epoch: of the position; empty before the first.
        has_no_descriptors: few file descriptors are left, or none.
        has_dropped_lines: log lines were dropped within the last minute.
        has_older_policies: it could not use the policy file, and answers by an earlier
            one; or a gateway that it writes into does.
        is_grpc_silent: its gRPC server does not answer.
        lacks_gateway: it writes into gateways, and there is none.
        has_failing_gateway: one of them does not take what it is sent, or is kept
            closed.
    """

    pid: int
    position: int = 0
    fresh_until: float = 0.0
    keys_until: float = 0.0
    entries: int = 0
    is_loading: bool = False
    epoch: str = ""
    has_no_descriptors: bool = False
    has_dropped_lines: bool = False
    has_older_policies: bool = False
    is_grpc_silent: bool = False
    lacks_gateway: bool = False
    has_failing_gateway: bool = False


class WorkerBoard:
    """The board; create it before the workers are forked.

    Args:
        workers: the number of workers.
        spare: additional slots, for example while a worker is replaced.
    """

    def __init__(self, workers: int, spare: int = 0) -> None:
        self.workers = workers
        self._slots = workers + spare
        self._memory = mmap.mmap(-1, self._slots * _SLOT_SIZE)

    def clear(self, slot: int) -> None:
        """Clear the slot of a worker that has ended."""
        self.write(slot, WorkerState(0))

    def write(self, slot: int, state: WorkerState) -> None:
        """Write the state of a worker."""
        packed = _RECORD.pack(
            state.pid,
            state.position,
            state.fresh_until,
            state.keys_until,
            state.entries,
            state.is_loading,
            state.has_no_descriptors,
            state.has_dropped_lines,
            state.has_older_policies,
            state.is_grpc_silent,
            state.lacks_gateway,
            state.has_failing_gateway,
            state.epoch.encode()[:64],
        )
        record = _CHECKSUM.pack(zlib.crc32(packed)) + packed
        start = slot * _SLOT_SIZE
        self._memory[start : start + len(record)] = record

    def read(self) -> list[WorkerState]:
        """Return the states of the living workers, in the order of their slots."""
        states = (self._read(slot) for slot in range(self._slots))
        return [state for state in states if state is not None and state.pid]

    def _read(self, slot: int) -> WorkerState | None:
        start = slot * _SLOT_SIZE
        size = _CHECKSUM.size + _RECORD.size
        for _ in range(_LOOKS):
            record = self._memory[start : start + size]
            packed = record[_CHECKSUM.size :]
            if zlib.crc32(packed) == _CHECKSUM.unpack_from(record)[0]:
                pid, position, fresh, keys, entries, *flags, epoch = _RECORD.unpack(
                    packed
                )
                is_loading, *other_flags = flags
                return WorkerState(
                    pid,
                    position,
                    fresh,
                    keys,
                    entries,
                    is_loading,
                    epoch.rstrip(b"\0").decode("utf-8", "replace"),
                    *other_flags,
                )
        return None


def not_ready_reasons(board: WorkerBoard, boottime: float) -> list[str]:
    """Return why this verifier should get no traffic; empty when it should.

    The words are `worker_missing`, `loading`, `no_keys`, `stale`,
    `descriptors_exhausted` and `grpc_silent`. Each holds for at least one worker.
    """
    states = board.read()
    found = {
        "worker_missing": len(states) < board.workers,
        "loading": any(state.is_loading for state in states),
        "no_keys": any(boottime >= state.keys_until for state in states),
        "stale": any(boottime >= state.fresh_until for state in states),
        DESCRIPTORS_EXHAUSTED: any(state.has_no_descriptors for state in states),
        GRPC_SILENT: any(state.is_grpc_silent for state in states),
    }
    return [reason for reason, holds in found.items() if holds]


def warnings(board: WorkerBoard) -> list[str]:
    """Return warnings that do not make the verifier unready.

    The words are `log_lines_dropped`, `policy_file_differs`, `native_gateway_missing`
    and `native_gateway_failing`. Each holds for at least one worker.
    """
    states = board.read()
    found = {
        LOG_LINES_DROPPED: any(state.has_dropped_lines for state in states),
        POLICY_FILE_DIFFERS: any(state.has_older_policies for state in states),
        NATIVE_GATEWAY_MISSING: any(state.lacks_gateway for state in states),
        NATIVE_GATEWAY_FAILING: any(state.has_failing_gateway for state in states),
    }
    return [warning for warning, holds in found.items() if holds]
