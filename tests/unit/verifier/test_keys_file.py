"""The keys of another issuer on disk: sealed, as old as they are, never in the way."""

from __future__ import annotations

import logging
import os
from pathlib import Path

import pytest

from tests.support.clock import FakeClock
from verifier.disk.copy_file import Identity
from verifier.disk.keys_file import (
    MAX_FILE_BYTES,
    OLD_AFTER,
    KeysFile,
    remove_old_files,
)

JWKS = b'{"keys": []}'
ISSUER = "https://id.example.com/realms/main"


class Disk:
    """A directory, a clock, and files of its issuers."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.clock = FakeClock()
        self.boot, self.key = "one boot", b"k" * 32

    def file(self, issuer: str = ISSUER) -> KeysFile:
        return KeysFile(
            self.directory,
            issuer,
            lambda: Identity(self.key, "https://own.test", "f", self.boot),
            self.clock.monotonic,
            self.clock.now,
        )

    def write(self) -> KeysFile:
        file = self.file()
        file.keys_refreshed(JWKS, self.clock.monotonic())
        return file


@pytest.fixture
def disk(tmp_path: Path) -> Disk:
    return Disk(tmp_path)


def test_keys_are_as_old_as_they_are(disk: Disk) -> None:
    disk.write()
    disk.clock.advance(50)
    assert disk.file().read() == (JWKS, disk.clock.monotonic() - 50)
    assert disk.file("https://other.example.com").read() is None


def test_answer_without_a_body_makes_the_stored_keys_young(disk: Disk) -> None:
    file = disk.write()
    disk.clock.advance(50)
    file.keys_refreshed(None, disk.clock.monotonic())
    assert disk.file().read() == (JWKS, disk.clock.monotonic())


def test_nothing_is_stored_before_the_first_keys(disk: Disk) -> None:
    disk.file().keys_refreshed(None, 1.0)
    assert list(disk.directory.iterdir()) == []


@pytest.mark.parametrize("boot", ["another", ""])
def test_another_boot_counts_by_the_wall_clock(disk: Disk, boot: str) -> None:
    disk.write()
    disk.boot = boot
    disk.clock.set_by(70)
    found = disk.file().read()
    assert found == (JWKS, disk.clock.monotonic() - 70)


def test_file_of_the_future_does_not_count(disk: Disk) -> None:
    disk.write()
    disk.boot = "another"
    disk.clock.set_by(-3_600)
    assert disk.file().read() is None


def test_wall_clock_that_was_set_changes_nothing_within_a_boot(disk: Disk) -> None:
    disk.write()
    disk.clock.set_by(-3_600)
    assert disk.file().read() == (JWKS, disk.clock.monotonic())


def test_every_changed_byte_is_seen(disk: Disk) -> None:
    path = disk.write().path
    whole = path.read_bytes()
    for place in range(len(whole)):
        changed = bytearray(whole)
        changed[place] ^= 1
        path.write_bytes(changed)
        assert disk.file().read() is None
    for end in (0, 31, 32, len(whole) - 1):
        path.write_bytes(whole[:end])
        assert disk.file().read() is None
    path.write_bytes(whole)
    assert disk.file().read() is not None


def test_file_of_another_feed_token_or_issuer_does_not_count(disk: Disk) -> None:
    path = disk.write().path
    path.rename(disk.file("https://other.example.com").path)
    assert disk.file("https://other.example.com").read() is None
    disk.write()
    disk.key = b"x" * 32
    assert disk.file().read() is None


@pytest.mark.parametrize("planted", ["link", "pipe", "large", "directory"])
def test_planted_file_is_not_read(
    disk: Disk, planted: str, caplog: pytest.LogCaptureFixture
) -> None:
    path = disk.write().path
    good = disk.directory / "good"
    path.rename(good)
    if planted == "link":
        path.symlink_to(good)
    elif planted == "pipe":
        os.mkfifo(path)
    elif planted == "large":
        path.write_bytes(good.read_bytes() + bytes(MAX_FILE_BYTES))
    else:
        path.mkdir()
    with caplog.at_level(logging.WARNING):
        assert disk.file().read() is None
    assert [record.message for record in caplog.records] == ["copy.keys_not_read"]


def test_disk_that_fails_is_logged_once_and_costs_nothing_else(
    disk: Disk, caplog: pytest.LogCaptureFixture
) -> None:
    file = disk.write()
    moved = disk.directory.rename(disk.directory.with_name("moved"))
    with caplog.at_level(logging.ERROR):
        for _ in range(3):
            file.keys_refreshed(JWKS, 1.0)
        assert len(caplog.records) == 1
        moved.rename(disk.directory)
        file.keys_refreshed(JWKS, 1.0)
        assert len(caplog.records) == 1
    assert [path.name for path in disk.directory.iterdir()] == [file.path.name]


def test_files_are_private_and_old_ones_go(disk: Disk) -> None:
    path = disk.write().path
    assert path.stat().st_mode & 0o777 == 0o600
    other = disk.directory / "0001.copy"
    other.write_bytes(b"")
    os.utime(other, (0, 0))
    now = path.stat().st_mtime
    remove_old_files(disk.directory, now + OLD_AFTER - 1)
    assert path.exists()
    remove_old_files(disk.directory, now + OLD_AFTER + 1)
    assert list(disk.directory.iterdir()) == [other]
