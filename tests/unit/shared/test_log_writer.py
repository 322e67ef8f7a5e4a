"""R47: a thread that logs never waits, even while standard error is blocked."""

from __future__ import annotations

import logging
import os
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from shared.log_writer import LineWriter
from tests.support.full_stderr import fill_pipe
from tests.support.processes import wait_until


@dataclass
class Pipe:
    """A pipe whose other end is read on the test's request."""

    reading: int
    writing: int
    _rest: bytes = field(default=b"", init=False)

    def read_lines(self) -> list[str]:
        """Read all bytes, skip the filling of the pipe; return the whole lines."""
        os.set_blocking(self.reading, False)
        try:
            while piece := os.read(self.reading, 65_536):
                self._rest += piece
        except BlockingIOError:
            pass
        *lines, self._rest = self._rest.lstrip(b"x").split(b"\n")
        return [line.decode() for line in lines]


@pytest.fixture
def pipe() -> Iterator[Pipe]:
    pipe = Pipe(*os.pipe())
    yield pipe
    os.close(pipe.reading)


@pytest.fixture
def full_pipe() -> Iterator[Pipe]:
    pipe = Pipe(*fill_pipe())
    yield pipe
    os.close(pipe.reading)


def writer_to(descriptor: int, max_waiting_bytes: int = 1_048_576) -> LineWriter:
    return LineWriter(
        descriptor,
        lambda count: f"dropped {count}",
        max_waiting_bytes=max_waiting_bytes,
    )


def logger_to(handler: logging.Handler) -> logging.Logger:
    logger = logging.Logger("test")
    logger.addHandler(handler)
    return logger


def collect(pipe: Pipe, is_enough: Callable[[list[str]], bool]) -> list[str]:
    lines: list[str] = []

    def read() -> bool:
        lines.extend(pipe.read_lines())
        return is_enough(lines)

    wait_until(read)
    return lines


def test_lines_arrive_whole_and_in_order(pipe: Pipe) -> None:
    writer = writer_to(pipe.writing)
    logger = logger_to(writer)
    wanted = [f"{number} {'a' * (number % 3_000)}" for number in range(200)]
    reader = threading.Thread(target=lambda: [logger.info(line) for line in wanted])
    reader.start()
    assert collect(pipe, lambda lines: len(lines) >= len(wanted)) == wanted
    reader.join()
    assert writer.dropped == 0


def test_a_pipe_that_is_not_read_costs_lines_and_no_time(full_pipe: Pipe) -> None:
    writer = writer_to(full_pipe.writing, max_waiting_bytes=20_000)
    logger = logger_to(writer)
    for number in range(5_000):
        # Without the queue the first of these never returns.
        logger.info("%s", f"{number:010d}")
    dropped = writer.dropped
    assert 0 < dropped < 5_000
    # It reads again: the waiting lines come out, and the count of dropped ones. On a
    # busy machine the count comes between two writes of waiting lines.
    lines = collect(
        full_pipe,
        lambda lines: f"dropped {dropped}" in lines and len(lines) > 5_000 - dropped,
    )
    numbers = [int(line) for line in lines if not line.startswith("dropped")]
    assert numbers == sorted(numbers)
    logger.info("the last")
    lines += collect(full_pipe, lambda more: "the last" in more)
    written = [line for line in lines if not line.startswith("dropped")]
    assert len(set(written)) == len(written)
    assert len(numbers) + dropped == 5_000


def test_waiting_lines_are_bounded_in_bytes(full_pipe: Pipe) -> None:
    writer = writer_to(full_pipe.writing, max_waiting_bytes=10_000)
    logger = logger_to(writer)
    for _ in range(100):
        logger.info("a" * 999)
    assert writer.dropped == 90


def test_flush_gives_up_on_a_pipe_that_is_not_read(full_pipe: Pipe) -> None:
    writer = LineWriter(full_pipe.writing, str, flush_seconds=0.05)
    logger_to(writer).info("a line")
    # Without the bound it never returns, and neither does the end of the process.
    writer.flush()
    assert collect(full_pipe, bool) == ["a line"]


def test_flush_returns_when_all_is_written(pipe: Pipe) -> None:
    writer = writer_to(pipe.writing)
    logger = logger_to(writer)
    for number in range(100):
        logger.info("%s", number)
    writer.flush()
    assert pipe.read_lines() == [str(number) for number in range(100)]


def test_a_descriptor_that_others_made_non_blocking_loses_nothing(
    full_pipe: Pipe,
) -> None:
    os.set_blocking(full_pipe.writing, False)
    writer = writer_to(full_pipe.writing)
    logger_to(writer).info("a line")
    assert collect(full_pipe, bool) == ["a line"]


def test_a_full_disk_is_counted_and_ends_nothing() -> None:
    descriptor = os.open("/dev/full", os.O_WRONLY)
    writer = writer_to(descriptor)
    logger = logger_to(writer)
    logger.info("a line")
    wait_until(lambda: writer.dropped == 1)
    logger.info("another")
    wait_until(lambda: writer.dropped == 2)


def test_a_record_with_a_fault_costs_its_own_line(
    pipe: Pipe, capfd: pytest.CaptureFixture[str]
) -> None:
    writer = writer_to(pipe.writing)
    logger = logger_to(writer)
    logger.info("%d", "not a number")
    logger.info("the next")
    assert collect(pipe, lambda lines: "the next" in lines) == ["dropped 1", "the next"]
    assert capfd.readouterr().err == ""


def test_a_child_writes_its_own_lines_and_none_of_its_parents(
    full_pipe: Pipe, tmp_path: Path
) -> None:
    """A worker of gunicorn begins by a fork, and no thread is copied by one."""
    writer = writer_to(full_pipe.writing)
    logger = logger_to(writer)
    logger.info("the parent's")
    pid = os.fork()
    if pid == 0:
        try:
            logger.info("the child's")
            writer.flush()
        finally:
            os._exit(0)
    lines = collect(full_pipe, lambda lines: len(lines) >= 2)
    os.waitpid(pid, 0)
    assert sorted(lines + full_pipe.read_lines()) == ["the child's", "the parent's"]
