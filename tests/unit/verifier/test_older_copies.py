"""Disk copies of an older version, which are in the configured directory itself."""

from __future__ import annotations

import asyncio
import fcntl
import os
from pathlib import Path

import orjson
import pytest

from shared.feed import EntryKind
from tests.support.cold_starts import VerifierHost, kill
from tests.support.gatehouse_verifier import SimulatedVerifier
from verifier.disk.copy_file import NEW_SUFFIX, CopyFile, Identity
from verifier.disk.copy_format import Mark, RecordKind, RecordReader, boot_digest
from verifier.disk.state_directory import (
    locked,
)

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


class OlderWriter:
    """An earlier version: its copy lies in the directory that is configured.

    Its header has device and inode only.
    """

    def __init__(self, host: VerifierHost, name: str = "older") -> None:
        self.host = host
        host.state_dir.mkdir(mode=0o700, exist_ok=True)
        self.path = host.state_dir / f"{name}{NEW_SUFFIX}"
        identity = SimulatedVerifier(host.clock, host.issuer).copy.identity
        descriptor = os.open(self.path, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o600)
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        mark = Mark(0, boot_digest(identity.boot))
        reader = RecordReader(descriptor, identity.key)
        self.file = CopyFile(self.path, descriptor, identity.key, reader, mark)
        self._write(identity)

    def _write(self, identity: Identity) -> None:
        host, now = self.host, self.host.clock.monotonic()
        status = os.fstat(self.file.descriptor)
        header = {"device": status.st_dev, "inode": status.st_ino}
        self.file.append(
            RecordKind.HEADER, {"version": 1, "issuer": identity.issuer, **header}
        )
        self.file.append(RecordKind.WRITER, {"follower": "old-id", "replaces": []})
        if host.issuer.entries:
            self.file.append(RecordKind.ENTRIES, host.issuer.entries)
        at = {"epoch": host.issuer.epoch, "position": host.issuer.head}
        self.file.append(RecordKind.POSITION, at)
        jwks = orjson.dumps({"keys": [key.jwk.to_wire() for key in host.issuer.keys]})
        self.file.append(RecordKind.KEYS, {"jwks": jwks.decode()})
        self.file.set_mark(
            asked_at=now,
            fresh_until=now + 30,
            keys_asked_at=now,
            keys_wall=host.clock.now(),
        )
        self.file.publish()
        self.path = self.file.path

    def end(self) -> Path:
        """End the writer; return its file."""
        self.file.close()
        return self.path


async def test_copies_of_an_older_version_are_moved_and_kept(
    host: VerifierHost, caplog: pytest.LogCaptureFixture
) -> None:
    """Entries and keys count. An age does not: the file may be a copy of itself."""
    caplog.set_level("INFO")
    host.issuer.revoke(EntryKind.SID, "dead")
    older = OlderWriter(host).end()
    host.issuer.is_down = True
    verifier = await host.start(policies=ALLOW_STALE)
    assert "copy.moved_in" in caplog.messages
    assert not older.exists()
    assert statuses(verifier) == (503, 503)
    assert (verifier.feed.epoch, verifier.feed.replaces) == (None, ())
    lax, mint = b"/verify/nginx/p/lax", host.issuer.mint
    assert verifier.check(mint(), target=lax).status == 200
    assert verifier.check(mint(sid="dead"), target=lax).status == 401
    host.issuer.is_down = False
    await verifier.sync()
    assert statuses(verifier) == (200, 401)
    kill(verifier)
    assert len(host.copies()) == 1
    host.issuer.is_down = True
    assert statuses(await host.start()) == (200, 401)


async def test_entries_of_a_living_older_version_count(
    host: VerifierHost,
) -> None:
    """Its file stays where it is, and so does its row at the issuer."""
    host.issuer.revoke(EntryKind.SID, "dead")
    older = OlderWriter(host)
    verifier = await host.start()
    assert older.path.exists()
    assert len(verifier.trust.snapshot.own.revocations) == 1
    assert (verifier.feed.epoch, verifier.feed.replaces) == (None, ())
    kill(verifier)
    older.end()
    again = await host.start()
    assert not older.path.exists()
    assert len(again.trust.snapshot.own.revocations) == 1


async def test_workers_share_the_copies_of_an_older_version(host: VerifierHost) -> None:
    for number in range(4):
        host.issuer.revoke(EntryKind.SID, f"dead-{number}")
        OlderWriter(host, f"older-{number}").end()
    pair = [await host.start(workers=2) for _ in range(2)]
    assert [len(v.trust.snapshot.own.revocations) for v in pair] == [4, 4]
    assert list(host.state_dir.glob("*.copy")) == []
    assert len(host.copies()) == 2


async def test_a_copy_that_is_moved_in_keeps_its_age_and_its_identity(
    host: VerifierHost,
) -> None:
    old = await killed(host)
    (path,) = host.copies()
    path.rename(host.state_dir / path.name)
    host.issuer.is_down = True
    verifier = await host.start()
    assert statuses(verifier) == (200, 401)
    assert verifier.feed.replaces == (old.copy.identity.follower,)


async def test_a_copy_that_cannot_be_moved_in_counts_where_it_is(
    host: VerifierHost,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    host.issuer.revoke(EntryKind.SID, "dead")
    older = OlderWriter(host).end()
    rename = Path.rename

    def refuse(path: Path, target: Path) -> Path:
        if path == older:
            raise PermissionError("the directory is read-only")
        return rename(path, target)

    monkeypatch.setattr(Path, "rename", refuse)
    verifier = await host.start()
    assert "copy.not_moved" in caplog.messages
    assert older.exists()
    assert len(verifier.trust.snapshot.own.revocations) == 1
    await verifier.sync()
    assert statuses(verifier) == (200, 401)


async def test_files_that_are_not_copies_of_ours_stay_in_a_shared_directory(
    host: VerifierHost,
) -> None:
    host.state_dir.mkdir(mode=0o777)
    names = ("photo.copy", "half.new", "gone.copy")
    for name in names[:2]:
        (host.state_dir / name).write_text("of another program")
    (host.state_dir / names[2]).symlink_to(host.state_dir / "away")
    OlderWriter(host).end()
    await killed(host)
    assert all(os.path.lexists(host.state_dir / name) for name in names)


async def test_an_older_version_that_starts_beside_us_is_waited_for(
    host: VerifierHost,
) -> None:
    """It sorts the files out under the lock in the configured directory."""
    older = OlderWriter(host).end()
    async with locked(host.state_dir, max_wait=0.0):
        starting = asyncio.create_task(host.start())
        for _ in range(100):
            await asyncio.sleep(0)
        assert host.directory.exists()
        assert older.exists()
        assert not starting.done()
    verifier = await starting
    assert verifier.copy.state == "kept"
    assert not older.exists()


async def test_another_users_lock_in_a_shared_directory_is_no_lock(
    host: VerifierHost,
) -> None:
    OlderWriter(host).end()
    (host.state_dir / "directory.lock").symlink_to(host.state_dir / "away")
    verifier = await host.start()
    assert verifier.copy.state == "kept"
    assert list(host.state_dir.glob("*.copy")) == []
