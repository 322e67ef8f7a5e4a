"""The policy file is read again when it changed, without a signal (R65)."""

from __future__ import annotations

import asyncio
import logging
import os
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.support.gatehouse_verifier import started
from tests.support.reloading import ReloadableVerifier
from verifier.operators.worker_board import WorkerBoard, WorkerState, warnings
from verifier.reloading.policy_file import Identity, look
from verifier.reloading.watch import PolicyWatch

OLD = "[policies.old]\n"
NEW = "[policies.new]\n"
STALE = '[policies.lax]\non_stale = "allow"\n'
BAD = "[policies.old]\nrequired_scope = []\n"


class Watched:
    """A verifier whose policy file is watched; the test says when a look is made.

    Attributes:
        notices: how often the parent was asked to read the file as well.
    """

    def __init__(self, reloadable: ReloadableVerifier) -> None:
        self.reloadable = reloadable
        self.file = reloadable.policy_file
        self.notices = 0
        reloader = reloadable.reloader
        reloader._parts = reloader._parts._replace(on_policies=self._notice)
        self.watch = self.watch_by(look)

    def _notice(self) -> None:
        self.notices += 1

    def watch_by(self, seen: Callable[[str], Identity], **more: Any) -> PolicyWatch:
        reloader = self.reloadable.reloader
        return PolicyWatch((str(self.file), ""), 1.0, reloader, look=seen, **more)

    async def look(self, times: int = 1) -> None:
        for _ in range(times):
            await self.watch.step()

    @property
    def names(self) -> set[str]:
        return set(self.reloadable.verifier.gate.policies.policies) - {"default"}

    @property
    def outcomes(self) -> dict[str, int]:
        return dict(self.reloadable.report.outcomes)


@pytest.fixture
async def watched(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> Watched:
    reloadable = ReloadableVerifier(await started(), tmp_path, OLD)
    # As a worker does before it serves.
    reloadable.files.renew()
    caplog.set_level(logging.INFO)
    caplog.clear()
    return Watched(reloadable)


def lines(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [record.getMessage() for record in caplog.records]


async def test_unchanged_file_is_not_read(
    watched: Watched, caplog: pytest.LogCaptureFixture
) -> None:
    await watched.look(5)
    assert (watched.outcomes, lines(caplog), watched.notices) == ({}, [], 0)


def write(file: Path) -> None:
    file.write_text(NEW)


def rename(file: Path) -> None:
    beside = file.with_suffix(".new")
    beside.write_text(NEW)
    beside.rename(file)


def remove_and_write(file: Path) -> None:
    file.unlink()
    file.write_text(NEW)


def keep_the_time(file: Path) -> None:
    """As `cp --preserve` does: another file of the same size and times."""
    times = file.stat()
    write(file)
    os.utime(file, ns=(times.st_atime_ns, times.st_mtime_ns))


@pytest.mark.parametrize("change", [write, rename, remove_and_write, keep_the_time])
async def test_change_is_in_force_at_the_second_look_at_it(
    watched: Watched,
    caplog: pytest.LogCaptureFixture,
    change: Callable[[Path], None],
) -> None:
    await watched.look(2)
    change(watched.file)
    await watched.look()
    assert watched.names == {"old"}
    await watched.look()
    assert watched.names == {"new"}
    await watched.look(3)
    assert watched.outcomes == {"changed": 1}
    assert lines(caplog) == ["reload.done"]
    assert watched.notices == 1


async def test_another_target_of_a_link_on_the_way_is_a_change(
    watched: Watched, tmp_path: Path
) -> None:
    """Kubernetes keeps the files of a ConfigMap behind a link `..data`."""
    for name, text in (("1", OLD), ("2", NEW)):
        (tmp_path / name).mkdir()
        (tmp_path / name / "policies.toml").write_text(text)
    (tmp_path / "..data").symlink_to("1")
    watched.file.unlink()
    watched.file.symlink_to("..data/policies.toml")
    await watched.look(3)
    assert (watched.names, watched.outcomes) == ({"old"}, {})
    (tmp_path / "..data_tmp").symlink_to("2")
    (tmp_path / "..data_tmp").rename(tmp_path / "..data")
    await watched.look(2)
    assert watched.names == {"new"}


async def test_file_that_is_written_in_steps_is_read_when_it_rests(
    watched: Watched, caplog: pytest.LogCaptureFixture
) -> None:
    watched.file.write_text("[policies.n")
    await watched.look()
    watched.file.write_text("[policies.new]\nrequired_")
    await watched.look()
    watched.file.write_text(NEW)
    await watched.look()
    assert lines(caplog) == []
    await watched.look()
    assert watched.names == {"new"}
    assert lines(caplog) == ["reload.done"]


async def test_file_that_is_missing_for_a_moment_is_no_trouble(
    watched: Watched, caplog: pytest.LogCaptureFixture
) -> None:
    await watched.look(2)
    watched.file.unlink()
    await watched.look()
    watched.file.write_text(OLD)
    await watched.look(3)
    assert lines(caplog) == []
    assert watched.reloadable.report.policy_error == ""


async def test_file_that_changes_while_it_is_read_is_not_used(
    watched: Watched, monkeypatch: pytest.MonkeyPatch
) -> None:
    from verifier.reloading import files

    read = files.read_policy_texts

    def read_too_early(*settings: Any) -> Any:
        texts = read(*settings)
        watched.file.write_text(NEW + "# the second half\n")
        return texts

    await watched.look(2)
    watched.file.write_text(NEW)
    with monkeypatch.context() as patch:
        patch.setattr(files, "read_policy_texts", read_too_early)
        await watched.look(2)
    assert (watched.names, watched.outcomes) == ({"old"}, {})
    await watched.look(2)
    assert watched.names == {"new"}


@pytest.mark.parametrize("bad", [BAD, "", None], ids=["misspelt", "empty", "gone"])
async def test_bad_file_is_reported_once_and_ends_without_a_signal(
    watched: Watched, caplog: pytest.LogCaptureFixture, bad: str | None
) -> None:
    if bad is None:
        watched.file.unlink()
    else:
        watched.file.write_text(bad)
    await watched.look(10)
    report = watched.reloadable.report
    assert watched.names == {"old"}
    assert report.policy_error
    assert watched.outcomes == {"kept": 1}
    assert lines(caplog) == ["reload.kept", "reload.done"]
    watched.file.write_text(NEW)
    await watched.look(2)
    assert watched.names == {"new"}
    assert report.policy_error == ""
    assert lines(caplog)[2:] == ["reload.done"]


async def test_each_bad_content_is_reported(
    watched: Watched, caplog: pytest.LogCaptureFixture
) -> None:
    for text in (BAD, BAD + "#", BAD):
        watched.file.write_text(text)
        await watched.look(3)
        os.utime(watched.file)
        await watched.look(3)
    assert lines(caplog).count("reload.kept") == 3


async def test_return_to_the_content_in_force_ends_the_report(
    watched: Watched, caplog: pytest.LogCaptureFixture
) -> None:
    before = watched.reloadable.verifier.gate.policies
    watched.file.write_text(BAD)
    await watched.look(2)
    watched.file.write_text(OLD)
    await watched.look(2)
    assert watched.reloadable.verifier.gate.policies is before
    assert watched.reloadable.report.policy_error == ""
    assert watched.outcomes == {"kept": 1, "unchanged": 1}
    assert watched.notices == 0


async def test_file_that_could_not_be_read_is_tried_again(
    watched: Watched, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A lack of descriptors passes, and the file does not change by it."""
    from shared.configuration import bounded_file

    def fail(*_: object) -> int:
        raise OSError(24, "Too many open files")

    watched.file.write_text(NEW)
    with monkeypatch.context() as patch:
        patch.setattr(bounded_file.os, "open", fail)
        await watched.look(5)
    assert "Too many open files" in watched.reloadable.report.policy_error
    assert watched.outcomes == {"kept": 1}
    await watched.look()
    assert watched.names == {"new"}


async def test_only_the_policy_file_is_read(watched: Watched) -> None:
    watched.reloadable.settings = RuntimeError("must not be read")
    watched.reloadable.authorities_renewed = True
    watched.file.write_text(NEW)
    await watched.look(2)
    assert watched.names == {"new"}
    assert watched.outcomes == {"changed": 1}


async def test_reload_that_was_asked_for_leaves_nothing_to_the_watch(
    watched: Watched, caplog: pytest.LogCaptureFixture
) -> None:
    for text in (NEW, BAD):
        watched.file.write_text(text)
        await watched.reloadable.reloader.reload()
        caplog.clear()
        await watched.look(5)
        assert lines(caplog) == []
    assert watched.outcomes == {"changed": 1, "kept": 1}


async def test_watch_and_reload_never_read_at_the_same_time(
    watched: Watched, monkeypatch: pytest.MonkeyPatch
) -> None:
    files = watched.reloadable.files
    read, running = files._read_policies, threading.Lock()

    def read_alone(*outcome: Any) -> Any:
        assert running.acquire(blocking=False), "two readings at once"
        try:
            return read(*outcome)
        finally:
            running.release()

    monkeypatch.setattr(files, "_read_policies", read_alone)
    await watched.look(2)
    for number in range(20):
        watched.file.write_text(f"[policies.p{number}]\n")
        await watched.look()
        await asyncio.gather(
            watched.look(), *(watched.reloadable.reloader.reload() for _ in range(3))
        )
        assert watched.names == {f"p{number}"}
    assert set(watched.outcomes) <= {"changed", "unchanged"}


async def test_reload_that_waits_for_the_watch_reads_everything(
    watched: Watched, caplog: pytest.LogCaptureFixture
) -> None:
    """Calls that wait share one reading; it must be the larger one."""
    reloader = watched.reloadable.reloader
    watched.file.write_text(NEW)
    identity = look(str(watched.file))
    async with reloader._run._lock:
        waiting = asyncio.create_task(reloader.renew_policies(identity))
        await asyncio.sleep(0)
        watched.reloadable.authorities_renewed = True
        await reloader.reload()
    await waiting
    assert watched.names == {"new"}
    (done,) = [vars(record)["fields"] for record in caplog.records]
    assert done["changed"] == ["VERIFIER_CA_FILE", "VERIFIER_POLICY_FILE"]


async def test_stale_policies_come_into_force_when_the_issuer_is_back(
    watched: Watched, caplog: pytest.LogCaptureFixture
) -> None:
    reloadable, feed = watched.reloadable, watched.reloadable.verifier.feed
    watched.file.write_text(STALE)
    await watched.look(10)
    assert watched.names == {"old"}
    assert lines(caplog) == ["reload.kept", "reload.done"]

    async def sleep(seconds: float) -> None:
        await ReloadableVerifier.sleep(reloadable, seconds)
        await feed.step()

    reloadable.reloader._sleep = sleep
    reloadable.verifier.clock.advance(1)
    await feed.step()
    await watched.look()
    assert watched.names == {"lax"}
    assert reloadable.report.policy_error == ""
    await watched.look(3)
    assert watched.outcomes == {"kept": 1, "changed": 1}


# --- the file system and faults ------------------------------------------------------


async def test_file_system_that_hangs_holds_nothing_up_and_is_logged(
    watched: Watched, caplog: pytest.LogCaptureFixture
) -> None:
    goes_on, begun = threading.Event(), []

    def hang(path: str) -> Identity:
        begun.append(path)
        assert goes_on.wait(60)
        return look(path)

    watched.watch = watched.watch_by(hang, patience=0.01)
    looking = asyncio.create_task(watched.look())
    while not lines(caplog):
        await asyncio.sleep(0)
    # The loop runs, and no second look begins.
    assert watched.reloadable.verifier.check(None).status == 401
    assert lines(caplog) == ["policy_watch.waiting"]
    assert len(begun) == 1
    goes_on.set()
    await looking


async def test_looks_are_a_period_apart_and_outlive_a_fault(
    watched: Watched, caplog: pytest.LogCaptureFixture
) -> None:
    slept: list[float] = []
    failing: Iterator[bool] = iter([True, False, False])

    async def sleep(seconds: float) -> None:
        slept.append(seconds)
        if len(slept) > 3:
            raise asyncio.CancelledError

    def seen(path: str) -> Identity:
        # The file is looked at first; no issuers file is named.
        if path and next(failing):
            raise RuntimeError("a fault")
        return look(path)

    watched.file.write_text(NEW)
    with pytest.raises(asyncio.CancelledError):
        await watched.watch_by(seen, sleep=sleep).run()
    assert slept == [1.0] * 4
    assert lines(caplog) == ["policy_watch.crashed", "reload.done"]
    assert watched.names == {"new"}


def test_readiness_warns_of_a_worker_with_older_policies() -> None:
    board = WorkerBoard(2)
    for slot in (0, 1):
        board.write(slot, WorkerState(slot + 1))
    assert warnings(board) == []
    board.write(1, WorkerState(2, has_older_policies=True, has_dropped_lines=True))
    assert warnings(board) == ["log_lines_dropped", "policy_file_differs"]
    board.write(1, WorkerState(2, lacks_gateway=True))
    assert warnings(board) == ["native_gateway_missing"]
    board.write(1, WorkerState(2, has_failing_gateway=True))
    assert warnings(board) == ["native_gateway_failing"]
