"""Disk copies that cannot be opened, read, locked or compacted: the gate goes on."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path

import pytest

from shared.feed import EntryKind
from tests.support.cold_starts import KEY, VerifierHost, kill
from tests.support.gatehouse_verifier import SimulatedVerifier
from verifier.disk.compaction import compact, keep_compact
from verifier.disk.copy_file import CopyFile
from verifier.disk.copy_format import (
    START,
    CopyDamagedError,
    Mark,
    Record,
    RecordKind,
    RecordReader,
    read_mark,
    seal,
    seal_mark,
)
from verifier.disk.disk_copy import COMPACT_SLACK
from verifier.disk.state_directory import locked


@pytest.fixture
def host(tmp_path: Path) -> VerifierHost:
    return VerifierHost(tmp_path / "state")


async def synced(host: VerifierHost) -> SimulatedVerifier:
    verifier = await host.start()
    host.issuer.revoke(EntryKind.SID, "dead")
    await verifier.sync()
    return verifier


async def test_unavailable_lock_is_given_up(tmp_path: Path) -> None:
    async with locked(tmp_path):
        with pytest.raises(TimeoutError):
            async with locked(tmp_path, max_wait=0.02):
                pytest.fail("two hold the lock")
    async with locked(tmp_path, max_wait=0.0):
        pass


async def test_a_link_is_not_followed(
    host: VerifierHost, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    kill(await synced(host))
    (path,) = host.copies()
    path.rename(tmp_path / "elsewhere")
    path.symlink_to(tmp_path / "elsewhere")
    verifier = await host.start()
    assert "copy.not_opened" in caplog.messages
    assert verifier.trust.snapshot.own.fresh_until == 0.0


def written_by(change: Callable[[CopyFile], None]) -> Callable[[VerifierHost], None]:
    """Return a function that makes a copy with something more in it."""

    def write(host: VerifierHost) -> None:
        host.directory.mkdir(parents=True)
        identity = SimulatedVerifier(host.clock, host.issuer).copy.identity
        file = CopyFile.create(host.directory, "made", identity)
        change(file)
        file.set_mark(asked_at=host.clock.monotonic(), keys_asked_at=0.0)
        file.publish()
        file.close()

    return write


async def test_kept_keys_that_cannot_be_used_are_refused(
    host: VerifierHost, caplog: pytest.LogCaptureFixture
) -> None:
    written_by(lambda file: file.append(RecordKind.KEYS, {"jwks": "{}"}))(host)
    verifier = await host.start()
    assert "copy.keys_refused" in caplog.messages
    await verifier.sync()
    assert verifier.check(host.issuer.mint()).status == 200


@pytest.mark.parametrize(
    "first",
    [
        Record(RecordKind.HEADER, b'{"version":2}'),
        Record(RecordKind.POSITION, b'{"epoch":"e","position":1}'),
    ],
    ids=["another version", "no header"],
)
async def test_a_file_with_an_unknown_header_is_left_alone(
    host: VerifierHost, first: Record, caplog: pytest.LogCaptureFixture
) -> None:
    host.directory.mkdir(parents=True)
    path = host.directory / "other.copy"
    path.write_bytes(seal_mark(KEY, Mark(0, bytes(16))) + seal(KEY, START, first))
    verifier = await host.start()
    assert verifier.feed.epoch is None
    assert "copy.not_ours" in caplog.messages
    assert path.exists()


def test_a_mark_of_another_version_and_a_record_of_an_unknown_kind_are_damage(
    tmp_path: Path,
) -> None:
    path = tmp_path / "file"
    mark = bytearray(seal_mark(KEY, Mark(0, bytes(16))))
    unknown = seal(KEY, START, Record(99, b""))  # type: ignore[arg-type]  # no kind
    path.write_bytes(bytes(mark) + unknown)
    with path.open("rb") as file:
        assert read_mark(file.fileno(), KEY) == Mark(0, bytes(16))
        with pytest.raises(CopyDamagedError, match="unknown kind"):
            list(RecordReader(file.fileno(), KEY).records(path.stat().st_size))


async def test_a_file_that_cannot_be_removed_is_emptied(
    host: VerifierHost, tmp_path: Path
) -> None:
    verifier = await synced(host)
    (path,) = host.copies()
    file = verifier.copy.file
    assert file is not None
    file.path = tmp_path  # a directory is not unlinked
    verifier.copy.lose(OSError("the disk is full"))
    assert path.stat().st_size == 0
    await verifier.feed.step()


async def test_a_copy_lost_while_it_is_compacted_stays_lost(host: VerifierHost) -> None:
    verifier = await synced(host)
    compacting = asyncio.create_task(compact(verifier.copy, host.clock.now()))
    await asyncio.sleep(0)
    verifier.copy.lose(OSError("the disk is full"))
    with pytest.raises(OSError, match="lost meanwhile"):
        await compacting
    assert host.copies() == []
    await compact(verifier.copy, host.clock.now())


async def run_compaction(verifier: SimulatedVerifier, rounds: int) -> list[float]:
    """Keep a bloated copy compact for so many rounds; return the pauses."""
    pauses: list[float] = []

    async def sleep(seconds: float) -> None:
        pauses.append(seconds)
        if len(pauses) > rounds:
            raise asyncio.CancelledError

    with pytest.raises(asyncio.CancelledError):
        await keep_compact(verifier.copy, lambda: 0, verifier.clock.now, sleep)
    return pauses


def bloat(verifier: SimulatedVerifier) -> None:
    while verifier.copy.size < COMPACT_SLACK + 100_000:
        verifier.copy.write_entries([(1, "jti", "x" * 200, 0, 0)] * 5_000)


async def test_compaction_that_fails_waits_longer_and_the_old_file_stays(
    host: VerifierHost, caplog: pytest.LogCaptureFixture
) -> None:
    verifier = await synced(host)
    bloat(verifier)
    file = verifier.copy.file
    assert file is not None
    in_the_way = file.path.with_suffix(".new")
    in_the_way.mkdir()
    assert await run_compaction(verifier, 2) == [1.0, 60.0, 60.0]
    assert "copy.not_compacted" in caplog.messages
    assert verifier.copy.state == "kept"
    in_the_way.rmdir()
    assert await run_compaction(verifier, 2) == [1.0, 1.0, 1.0]
    assert verifier.copy.size < 10_000


async def test_copy_that_reads_back_differently_is_lost(host: VerifierHost) -> None:
    verifier = await synced(host)
    bloat(verifier)
    (path,) = host.copies()
    with path.open("r+b") as file:
        file.seek(-5, 2)
        (byte,) = file.read(1)
        file.seek(-5, 2)
        file.write(bytes([byte ^ 1]))
    await run_compaction(verifier, 2)
    assert verifier.copy.state == "lost"
    assert host.copies() == []
