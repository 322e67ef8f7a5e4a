"""One process at a time writes into the directory of a HAProxy."""

from __future__ import annotations

import contextlib
from pathlib import Path

import pytest

from shared.checking.findings import Level
from shared.configuration.settings import SettingsError
from tests.unit.verifier.test_native_check import findings_of
from tests.unit.verifier.test_settings import load
from verifier import serve
from verifier.checking import native
from verifier.native.haproxy.sole_writer import (
    LOCK,
    SecondWriterError,
    check_sole_writer,
    sole_writer,
)


def test_second_writer_is_refused_until_the_first_one_has_ended(tmp_path: Path) -> None:
    directory = tmp_path / "haproxy"
    with sole_writer(directory):
        with pytest.raises(SecondWriterError, match="another `native haproxy`"):
            check_sole_writer(directory)
        with pytest.raises(SecondWriterError), sole_writer(directory):
            pass
    check_sole_writer(directory)
    with sole_writer(directory):
        pass


def test_link_is_not_followed(tmp_path: Path) -> None:
    (tmp_path / LOCK).symlink_to(tmp_path / "other")
    with pytest.raises(OSError, match="symbolic links"), sole_writer(tmp_path):
        pass
    assert not (tmp_path / "other").exists()


def test_start_names_the_setting_and_the_lock_is_held_until_the_end(
    tmp_path: Path,
) -> None:
    directory = tmp_path / "haproxy"
    settings = load(tmp_path, haproxy_dir=str(directory))
    with contextlib.ExitStack() as stack:
        serve._keep_others_out(settings, stack)
        with pytest.raises(SettingsError, match=r"^VERIFIER_HAPROXY_DIR: another"):
            serve._keep_others_out(settings, contextlib.ExitStack())
    check_sole_writer(directory)


def test_directory_that_cannot_be_made_is_named(tmp_path: Path) -> None:
    settings = load(tmp_path, haproxy_dir=str(tmp_path / "none" / "haproxy"))
    with pytest.raises(SettingsError, match=r"^VERIFIER_HAPROXY_DIR: cannot write"):
        serve._keep_others_out(settings, contextlib.ExitStack())


@pytest.mark.parametrize(
    ("name", "is_taken", "runs", "level", "text"),
    [
        ("haproxy", False, False, Level.OK, "no other process writes into"),
        ("haproxy", True, True, Level.OK, "and the program runs"),
        ("haproxy", True, False, Level.ERROR, "one HAProxy has one writer"),
        ("none/haproxy", False, False, Level.ERROR, "is not a directory"),
    ],
)
def test_check_says_whether_another_process_writes(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    name: str,
    is_taken: bool,
    runs: bool,
    level: Level,
    text: str,
) -> None:
    directory = tmp_path / name
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(native, "is_running", lambda program, bind: runs)
    with contextlib.ExitStack() as stack:
        if is_taken:
            stack.enter_context(sole_writer(directory))
        found = findings_of(
            tmp_path, haproxy_master="unix:/run/m.sock", haproxy_dir=str(directory)
        )
    ((found_level, found_text),) = [f for f in found if "policy" not in f[1]]
    assert (found_level, text in found_text) == (level, True)
    assert directory.exists() is is_taken
