"""The difference between a file and its copy, and file systems that show none."""

from __future__ import annotations

import ctypes
import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from verifier.disk import file_identity
from verifier.disk.file_identity import FileIdentity, identify


def identity_of(path: Path) -> FileIdentity:
    with path.open("rb") as file:
        return identify(file.fileno())


def test_a_file_keeps_its_identity_when_it_is_written_and_renamed(
    tmp_path: Path,
) -> None:
    path = tmp_path / "file"
    path.write_text("text")
    before = identity_of(path)
    assert before.is_certain
    path.write_text("another text")
    os.utime(path, (1, 1))
    assert identity_of(path.rename(tmp_path / "renamed")) == before


def test_a_file_made_under_the_number_of_another_is_another_file(
    tmp_path: Path,
) -> None:
    """ext4 gives the lowest free number; a file system that never does is safe as
    well.
    """
    path = tmp_path / "file"
    seen = set()
    for _ in range(20):
        path.write_text("text")
        seen.add(identity_of(path))
        path.unlink()
    assert len(seen) == 20


def test_a_file_system_without_either_time_gives_no_certainty() -> None:
    assert not identity_of(Path("/proc/version")).is_certain


@pytest.fixture
def old_library(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """A C library from before statx(2)."""
    file_identity._find_statx.cache_clear()
    monkeypatch.setattr(ctypes, "CDLL", lambda _: object())
    yield
    file_identity._find_statx.cache_clear()


@pytest.mark.usefixtures("old_library")
def test_the_time_of_birth_is_unknown_without_statx(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.touch()
    assert identity_of(path).born is None
