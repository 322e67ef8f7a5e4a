"""A copy that is given up has no age under any name: a hard link, or a moved file.

`cp -al` and backups by hard link keep the file itself. Put back, it is the original.
"""

from __future__ import annotations

import os
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest

from shared.feed import EntryKind
from tests.support.cold_starts import VerifierHost, kill
from tests.support.gatehouse_verifier import SimulatedVerifier
from verifier.disk.compaction import compact
from verifier.disk.copy_file import CopyFile
from verifier.disk.disk_copy import CopyError
from verifier.sync.goodbye import say_goodbye, stop_answering
from verifier.wire.public_port import PublicPort


@pytest.fixture
def host(tmp_path: Path) -> VerifierHost:
    return VerifierHost(tmp_path / "state")


async def synced(host: VerifierHost) -> SimulatedVerifier:
    verifier = await host.start()
    await verifier.sync()
    return verifier


async def lose(_house: VerifierHost, verifier: SimulatedVerifier) -> None:
    verifier.copy.lose(OSError("the disk is full"))


async def compact_away(host: VerifierHost, verifier: SimulatedVerifier) -> None:
    await compact(verifier.copy, host.clock.now())


async def stop(_house: VerifierHost, verifier: SimulatedVerifier) -> None:
    port = PublicPort(verifier.gate, lambda _: True, 10, 0.0)
    stop_answering(verifier.trust, port.abort_all)
    await say_goodbye(verifier.feed, verifier.copy, verifier.issuer.post)


def put_back(host: VerifierHost, aside: Path) -> None:
    """Put the file that was kept aside in place of all that is there."""
    for path in host.copies():
        path.unlink()
    aside.rename(host.directory / "back.copy")


@pytest.mark.parametrize("give_up", [lose, compact_away, stop])
async def test_a_link_to_a_copy_that_was_given_up_has_no_age(
    host: VerifierHost,
    tmp_path: Path,
    give_up: Callable[[VerifierHost, SimulatedVerifier], Awaitable[None]],
) -> None:
    """Later revocations are not in it, and may be confirmed."""
    verifier = await synced(host)
    (path,) = host.copies()
    os.link(path, tmp_path / "aside")
    await give_up(host, verifier)
    put_back(host, tmp_path / "aside")
    successor = await host.start()
    assert successor.check(host.issuer.mint()).status == 503
    # A lock that is free proves that the writer has ended only after a stop.
    has_ended = give_up is stop
    assert bool(successor.feed.replaces) is has_ended


async def test_a_link_to_a_copy_that_was_taken_in_has_no_age(
    host: VerifierHost, tmp_path: Path
) -> None:
    older, newer = await synced(host), await synced(host)
    assert older.copy.file is not None
    os.link(older.copy.file.path, tmp_path / "aside")
    host.clock.advance(1)
    await newer.feed.step()
    kill(older)
    kill(newer)
    heir = await host.start()
    assert set(heir.feed.replaces) == {
        older.feed.source.follower_id,
        newer.feed.source.follower_id,
    }
    host.issuer.revoke(EntryKind.SID, "dead")
    await heir.feed.step()
    kill(heir)
    put_back(host, tmp_path / "aside")
    successor = await host.start()
    assert successor.check(host.issuer.mint(sid="dead")).status == 503
    assert successor.feed.replaces == ()


def break_disk(file: CopyFile) -> None:
    """Let nothing be written to it any more."""
    os.dup2(os.open(file.path, os.O_RDONLY), file.descriptor)


async def test_nothing_is_acknowledged_while_a_link_counts_that_cannot_be_changed(
    host: VerifierHost, tmp_path: Path
) -> None:
    verifier = await synced(host)
    assert verifier.copy.file is not None
    os.link(verifier.copy.file.path, tmp_path / "aside")
    break_disk(verifier.copy.file)
    host.issuer.revoke(EntryKind.SID, "dead")
    with pytest.raises(CopyError):
        await verifier.feed.step()
    await stop(host, verifier)
    assert host.issuer.goodbyes == []


async def test_the_same_holds_for_a_file_that_was_compacted_away(
    host: VerifierHost, tmp_path: Path
) -> None:
    verifier = await synced(host)
    old = verifier.copy.file
    assert old is not None
    os.link(old.path, tmp_path / "aside")
    break_disk(old)
    await compact(verifier.copy, host.clock.now())
    host.issuer.revoke(EntryKind.SID, "dead")
    with pytest.raises(CopyError):
        await verifier.feed.step()
    await stop(host, verifier)
    assert host.issuer.goodbyes == []
