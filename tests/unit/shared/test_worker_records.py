"""Records in shared memory: whole or not there, also when the writer dies (R39)."""

from __future__ import annotations

import pytest

from shared.metrics.worker_records import WorkerRecords

OLD, NEW = b"old" * 5, b"new" * 7


def test_the_last_written_record_is_read() -> None:
    records = WorkerRecords(3, 100)
    assert records.read(1) is None
    for number in range(1, 6):
        records.write(1, number / 2, 40 + number, b"x" * number)
        record = records.read(1)
        assert record == (number, number / 2, 40 + number, b"x" * number)
    assert records.read(0) is records.read(2) is None


def test_a_writer_that_dies_in_the_middle_leaves_the_record_before() -> None:
    """For every byte it may have come to, over either half."""
    for writes_before in (1, 2):
        whole = WorkerRecords(1, 100)
        for _ in range(writes_before):
            whole.write(0, 1.0, 7, OLD)
        before = bytes(whole._memory)
        whole.write(0, 2.0, 7, NEW)
        after = bytes(whole._memory)
        changed = [n for n in range(len(before)) if before[n] != after[n]]
        for died_at in range(changed[0], changed[-1] + 1):
            torn = WorkerRecords(1, 100)
            torn._memory[:] = after[:died_at] + before[died_at:]
            record = torn.read(0)
            assert record is not None
            assert record.payload == OLD
            torn.write(0, 3.0, 8, NEW)
            record = torn.read(0)
            assert record is not None
            assert (record.payload, record.sequence) == (NEW, writes_before + 1)


def test_a_record_that_was_never_complete_is_ignored() -> None:
    records = WorkerRecords(1, 100)
    records._memory[5] = 1
    assert records.read(0) is None


def test_a_payload_that_is_too_large_is_refused_and_harms_no_neighbour() -> None:
    records = WorkerRecords(2, 10)
    records.write(1, 1.0, 7, b"neighbour")
    records.write(0, 1.0, 7, b"0123456789")
    with pytest.raises(ValueError, match="larger"):
        records.write(0, 2.0, 7, b"0123456789+")
    read = [records.read(index) for index in range(2)]
    assert [record and record.payload for record in read] == [
        b"0123456789",
        b"neighbour",
    ]
