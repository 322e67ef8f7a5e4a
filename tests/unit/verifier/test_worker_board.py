"""One board for all workers: the living ones, and whether all are ready."""

from __future__ import annotations

from verifier.operators.worker_board import WorkerBoard, WorkerState, not_ready_reasons

STATE = WorkerState(
    pid=4_194_304,
    position=1 << 40,
    fresh_until=1234.5,
    keys_until=86_400.25,
    entries=1_000_000,
    epoch="0b7c9a1e-0000-4000-8000-000000000001",
)


def test_written_state_is_read() -> None:
    board = WorkerBoard(2)
    board.write(0, STATE)
    others = [
        STATE._replace(pid=2, is_loading=True, epoch=""),
        STATE._replace(pid=2, has_no_descriptors=True),
        STATE._replace(pid=2, has_dropped_lines=True),
        STATE._replace(pid=2, has_older_policies=True),
        STATE._replace(pid=2, is_grpc_silent=True),
        STATE._replace(pid=2, lacks_gateway=True),
        STATE._replace(pid=2, has_failing_gateway=True),
    ]
    for other in others:
        board.write(1, other)
        assert board.read() == [STATE, other]


def test_a_record_in_the_middle_of_being_written_is_not_read() -> None:
    board = WorkerBoard(1)
    board.write(0, STATE)
    for offset in range(115):
        board.write(0, STATE)
        torn = board._memory[offset] ^ 1
        board._memory[offset : offset + 1] = bytes([torn])
        assert board.read() in ([], [STATE])
        assert "worker_missing" in not_ready_reasons(board, 0.0) or board.read()


def test_a_worker_that_ended_is_missing_until_another_has_its_slot() -> None:
    board = WorkerBoard(2, spare=1)
    for slot in (0, 1):
        board.write(slot, STATE._replace(pid=slot + 1))
    assert not_ready_reasons(board, 1_000.0) == []
    board.clear(0)
    assert not_ready_reasons(board, 1_000.0) == ["worker_missing"]
    board.write(2, STATE._replace(pid=3))
    assert [state.pid for state in board.read()] == [2, 3]
    assert not_ready_reasons(board, 1_000.0) == []


def test_one_grpc_server_that_does_not_answer_makes_the_verifier_unready() -> None:
    board = WorkerBoard(2)
    board.write(0, STATE)
    board.write(1, STATE._replace(is_grpc_silent=True))
    assert not_ready_reasons(board, 1_000.0) == ["grpc_silent"]
