"""The directory of disk copies: shared with other users, planted, copied."""

from __future__ import annotations

import errno
import os
import shutil
import stat
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from shared.feed import EntryKind
from tests.support.cold_starts import KEY, VerifierHost, kill
from tests.support.gatehouse_verifier import SimulatedVerifier
from verifier.commands.serving import check_state_dir
from verifier.disk.copy_file import CopyFile
from verifier.disk.file_identity import FileIdentity, identify
from verifier.disk.state_directory import (
    OWN_NAME,
    UnsafeDirectoryError,
    check_writable,
    open_directory,
    read_header,
)
from verifier.settings import SettingsError, VerifierSettings

ALLOW_STALE = '[policies.lax]\non_stale = "allow"\n'


@pytest.fixture
def host(tmp_path: Path) -> VerifierHost:
    return VerifierHost(tmp_path / "state")


async def killed(host: VerifierHost) -> SimulatedVerifier:
    """A verifier that had synced with one session revoked, and is no more."""
    verifier = await host.start()
    host.issuer.revoke(EntryKind.SID, "dead")
    await verifier.sync()
    kill(verifier)
    return verifier


def statuses(verifier: SimulatedVerifier) -> tuple[int, int]:
    """Return the answers to a good token and to a revoked one."""
    mint = verifier.issuer.mint
    good, dead = mint(), mint(sid="dead")
    return verifier.check(good).status, verifier.check(dead).status


def mode_of(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


# --- a directory that others use as well ---------------------------------------------


@pytest.mark.parametrize("mode", [0o777, 0o1777, 0o2775, 0o755, 0o700])
async def test_the_mode_of_a_directory_that_exists_is_never_changed(
    host: VerifierHost, mode: int
) -> None:
    """An emptyDir of Kubernetes is 0777, and `/tmp` is not ours to close."""
    host.state_dir.mkdir()
    host.state_dir.chmod(mode)
    await killed(host)
    assert mode_of(host.state_dir) == mode
    assert mode_of(host.directory) & 0o777 == 0o700
    assert {mode_of(p) for p in host.directory.iterdir()} == {0o600}
    assert statuses(await host.start()) == (200, 401)


async def test_a_directory_that_is_missing_is_made_for_its_owner_alone(
    host: VerifierHost,
) -> None:
    await killed(host)
    assert [mode_of(host.state_dir), mode_of(host.directory)] == [0o700, 0o700]


async def test_our_own_directory_is_closed_again_when_a_volume_opened_it(
    host: VerifierHost, caplog: pytest.LogCaptureFixture
) -> None:
    """Kubernetes adds the fsGroup's bits to all that is in a volume, at every start."""
    await killed(host)
    host.directory.chmod(0o2770)
    (path,) = host.copies()
    path.chmod(0o660)
    host.issuer.is_down = True
    verifier = await host.start()
    assert mode_of(host.directory) & 0o777 == 0o700
    assert "copy.directory_was_open" in caplog.messages
    # Somebody of the group may have put an older state into the file: no age.
    assert statuses(verifier) == (503, 503)
    assert verifier.feed.replaces == ()
    assert len(verifier.trust.snapshot.own.revocations) == 1
    host.issuer.is_down = False
    await verifier.sync()
    assert statuses(verifier) == (200, 401)


@pytest.fixture
def as_another_user(monkeypatch: pytest.MonkeyPatch) -> None:
    """The existing directory belongs to another user."""
    user = os.geteuid()
    monkeypatch.setattr(os, "geteuid", lambda: user + 1)


def settings_for(state_dir: Path) -> VerifierSettings:
    return VerifierSettings(
        _env_file=None,
        issuer_url="https://issuer.test",
        audience="api",
        feed_token="t" * 32,
        state_dir=str(state_dir),
    )


def plant_link(host: VerifierHost) -> None:
    elsewhere = host.state_dir.with_name("elsewhere")
    elsewhere.mkdir(mode=0o700)
    host.directory.symlink_to(elsewhere)


def plant_dangling_link(host: VerifierHost) -> None:
    host.directory.symlink_to(host.state_dir.with_name("elsewhere"))


def plant_file(host: VerifierHost) -> None:
    host.directory.touch()


@pytest.mark.parametrize("plant", [plant_link, plant_dangling_link, plant_file])
async def test_planted_file_or_link_at_our_directory_is_refused(
    host: VerifierHost,
    plant: object,
    caplog: pytest.LogCaptureFixture,
) -> None:
    host.state_dir.mkdir(mode=0o1777)
    plant(host)  # type: ignore[operator]  # a function of the list above
    with pytest.raises(SettingsError, match=r"^VERIFIER_STATE_DIR: .*is a link or a f"):
        check_state_dir(settings_for(host.state_dir))
    # Planted after the check, before a worker started again: it goes on without a copy.
    verifier = await host.start()
    await verifier.sync()
    assert "copy.lost" in caplog.messages
    assert OWN_NAME in verifier.copy.error
    elsewhere = host.state_dir.with_name("elsewhere")
    assert not elsewhere.exists() or list(elsewhere.iterdir()) == []


@pytest.mark.usefixtures("as_another_user")
def test_a_directory_of_another_user_is_refused(host: VerifierHost) -> None:
    host.directory.mkdir(parents=True, mode=0o700)
    with pytest.raises(UnsafeDirectoryError, match="belongs to user"):
        open_directory(host.state_dir)
    with pytest.raises(SettingsError, match=r"VERIFIER_STATE_DIR: .* runs as user"):
        check_state_dir(settings_for(host.state_dir))


async def test_files_of_another_user_count_for_nothing(
    host: VerifierHost,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """Sealed as ours, in our directory or beside it: neither read, moved nor
    removed.
    """
    await killed(host)
    (inside,) = host.copies()
    beside = host.state_dir / inside.name
    shutil.copy2(inside, beside)
    owners = {inside.stat().st_ino, beside.stat().st_ino}
    real_fstat, real_lstat = os.fstat, os.lstat

    def disowned(status: os.stat_result) -> os.stat_result:
        if status.st_ino not in owners:
            return status
        changed = list(status)
        changed[stat.ST_UID] = os.geteuid() + 1
        return os.stat_result(changed)

    monkeypatch.setattr(os, "fstat", lambda fd: disowned(real_fstat(fd)))
    monkeypatch.setattr(os, "lstat", lambda path: disowned(real_lstat(path)))
    verifier = await host.start()
    assert len(verifier.trust.snapshot.own.revocations) == 0
    assert statuses(verifier) == (503, 503)
    assert "copy.not_ours" in caplog.messages
    assert inside.exists()
    assert beside.exists()


async def test_a_planted_fifo_does_not_hold_a_start(
    host: VerifierHost, caplog: pytest.LogCaptureFixture
) -> None:
    await killed(host)
    os.mkfifo(host.directory / "planted.copy")
    os.mkfifo(host.state_dir / "planted.copy")
    assert statuses(await host.start()) == (200, 401)
    assert "copy.not_ours" in caplog.messages


def test_the_check_finds_a_directory_that_cannot_be_written(
    host: VerifierHost, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The start goes on without a copy then, and logs it."""
    settings = settings_for(host.state_dir)
    check_state_dir(settings)
    check_writable(host.state_dir)
    check_state_dir(settings_for(Path("")))
    assert not host.state_dir.exists()
    host.state_dir.write_text("a file")
    for path in (host.state_dir, host.state_dir / "deeper"):
        with pytest.raises(OSError, match="is not a directory"):
            check_writable(path)
        check_state_dir(settings_for(path))
    host.state_dir.unlink()

    def refuse(path: object, _mode: int = 0o777) -> None:
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), str(path))

    # Root may write everywhere: the answer of the kernel is given for it.
    monkeypatch.setattr(os, "mkdir", refuse)
    with pytest.raises(OSError, match="cannot make a directory in"):
        check_writable(host.state_dir)


# --- a copy of a copy
# ------------------------------------------------------------------


def copy_away_and_back(directory: Path) -> None:
    """As a backup does: `cp -a` gives the copy the original's times."""
    away = directory.with_name("away")
    subprocess.run(["cp", "-a", directory, away], check=True)
    shutil.rmtree(directory)
    subprocess.run(["cp", "-a", away, directory], check=True)
    shutil.rmtree(away)


async def test_a_directory_copied_away_and_back_is_no_original(
    host: VerifierHost,
) -> None:
    """Issue 10: on ext4 the file gets its old inode number again, and a verifier
    answered 200 from before the revocation until the first page."""
    for _ in range(5):
        verifier = await killed(host)
        copy_away_and_back(host.state_dir)
        host.issuer.is_down = True
        verifier = await host.start()
        assert statuses(verifier) == (503, 503)
        assert (verifier.feed.epoch, verifier.feed.replaces) == (None, ())
        assert len(verifier.trust.snapshot.own.revocations) == 1
        kill(verifier)
        shutil.rmtree(host.state_dir)
        host.issuer.is_down = False
        host.issuer.restore_backup(0)


@pytest.fixture
def written(host: VerifierHost) -> Iterator[CopyFile]:
    host.directory.mkdir(parents=True)
    identity = SimulatedVerifier(host.clock, host.issuer).copy.identity
    file = CopyFile.create(host.directory, "made", identity)
    yield file
    file.close()


def test_this_file_system_distinguishes_files_from_their_copies(
    written: CopyFile,
) -> None:
    found = identify(written.descriptor)
    assert found.is_certain
    assert found == identify(written.descriptor)
    assert read_header(written.descriptor, KEY).is_original


@pytest.mark.parametrize("changed", FileIdentity._fields)
def test_each_part_of_an_identity_counts(
    written: CopyFile, changed: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The same inode number with another generation, or born later, is another file."""
    now = identify(written.descriptor)
    other = now._replace(**{changed: (getattr(now, changed) or 0) + 1})
    monkeypatch.setattr("verifier.disk.state_directory.identify", lambda _: other)
    assert not read_header(written.descriptor, KEY).is_original


@pytest.mark.parametrize(
    ("file_identity", "is_original"),
    [
        (FileIdentity(1, 2, generation=3), True),
        (FileIdentity(1, 2, born=4), True),
        (FileIdentity(1, 2), False),
    ],
    ids=["generation", "birth", "neither"],
)
def test_no_file_is_an_original_where_the_file_system_has_neither_time(
    host: VerifierHost,
    file_identity: FileIdentity,
    is_original: bool,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Fail closed: it is read as a copy is, and its age does not count."""
    for module in ("state_directory", "copy_file"):
        monkeypatch.setattr(f"verifier.disk.{module}.identify", lambda _: file_identity)
    host.directory.mkdir(parents=True)
    identity = SimulatedVerifier(host.clock, host.issuer).copy.identity
    file = CopyFile.create(host.directory, "made", identity)
    assert read_header(file.descriptor, KEY).is_original is is_original
    file.close()


async def test_restarts_without_an_identity_use_entries_only(
    host: VerifierHost, monkeypatch: pytest.MonkeyPatch
) -> None:
    for module in ("state_directory", "copy_file"):
        monkeypatch.setattr(
            f"verifier.disk.{module}.identify", lambda _: FileIdentity(1, 2)
        )
    await killed(host)
    for _ in range(2):
        verifier = await host.start()
        assert statuses(verifier) == (503, 503)
        assert len(verifier.trust.snapshot.own.revocations) == 1
        kill(verifier)
    assert len(host.copies()) == 1
