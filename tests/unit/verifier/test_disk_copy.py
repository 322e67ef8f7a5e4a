"""The disk copy is written before anything is acknowledged, or it is destroyed."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Mapping
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

import orjson
import pytest

from shared.feed import EntryKind
from tests.support.cold_starts import KEY, VerifierHost, has_record, kill, records
from tests.support.gatehouse_verifier import SimulatedVerifier
from verifier.check.revocations import PRUNE_MARGIN
from verifier.disk.compaction import compact, keep_compact, living_rows
from verifier.disk.copy_file import CopyFile
from verifier.disk.copy_format import CopyDamagedError, RecordKind, read_mark
from verifier.disk.disk_copy import COMPACT_SLACK, CopyError
from verifier.disk.state_directory import _is_still_there, _try_lock
from verifier.sync.fetch import Fetched, TakeLine


@pytest.fixture
def host(tmp_path: Path) -> VerifierHost:
    return VerifierHost(tmp_path / "state")


async def synced(host: VerifierHost) -> SimulatedVerifier:
    verifier = await host.start()
    await verifier.sync()
    return verifier


def file_of(host: VerifierHost) -> Path:
    (path,) = host.copies()
    return path


async def test_a_position_is_acknowledged_only_with_its_entries_on_disk(
    host: VerifierHost,
) -> None:
    """`after=N` promises to have them after a kill (docs/revocation.md)."""
    verifier = await synced(host)
    fetch, seen = host.issuer.fetch, []

    async def look(
        url: str,
        headers: Mapping[str, str],
        hold: float,
        max_bytes: int,
        take_line: TakeLine | None = None,
    ) -> Fetched:
        path = file_of(host)
        with path.open("rb") as file:
            assert read_mark(file.fileno(), KEY).length == path.stat().st_size
        said = [
            orjson.loads(r.payload)
            for r in records(path)
            if r.kind is RecordKind.POSITION
        ]
        seen.append((said[-1]["position"], verifier.feed.position))
        for n in range(verifier.feed.position):
            assert has_record(path, RecordKind.ENTRIES, f'"s-{n}"'.encode())
        return await fetch(url, headers, hold, max_bytes, take_line)

    verifier.feed._fetch = look
    host.issuer.page_limit = 2
    for n in range(5):
        host.issuer.revoke(EntryKind.SID, f"s-{n}")
    for _ in range(4):
        await verifier.feed.step()
    assert seen == [(0, 0), (2, 2), (4, 4), (5, 5)]


async def test_answers_without_news_do_not_let_the_file_grow(
    host: VerifierHost,
) -> None:
    verifier = await synced(host)
    size = verifier.copy.size
    for _ in range(50):
        host.clock.advance(5)
        await verifier.feed.step()
        await verifier.keys.step()
    assert verifier.copy.size == file_of(host).stat().st_size == size
    kill(verifier)
    host.clock.advance(29)
    verifier = await host.start()
    assert verifier.check(host.issuer.mint()).status == 200


async def test_the_first_request_after_a_start_from_a_copy_is_not_held(
    host: VerifierHost,
) -> None:
    """The age of the copy is no answer of the feed: workers that were killed every two
    seconds each started from it, waited in a held request, and let it grow too old.
    """
    kill(await synced(host))
    host.clock.advance(5)
    verifier = await host.start()
    assert verifier.feed.status.last_success is not None
    await verifier.feed.step()
    await verifier.feed.step()
    asked = [parse_qs(urlsplit(url).query) for url in host.issuer.fetches[-2:]]
    assert [query["wait"] for query in asked] == [["0"], ["5"]]


def break_disk(verifier: SimulatedVerifier) -> None:
    """From now on no write is taken: the descriptor is for reading only."""
    file = verifier.copy.file
    assert file is not None
    os.dup2(os.open(file.path, os.O_RDONLY), file.descriptor)


async def test_a_copy_that_cannot_be_written_is_destroyed_before_the_next_request(
    host: VerifierHost, caplog: pytest.LogCaptureFixture
) -> None:
    verifier = await synced(host)
    break_disk(verifier)
    host.issuer.revoke(EntryKind.SID, "dead")
    await verifier.feed.step()
    assert verifier.feed.position == 1
    assert host.copies() == []
    assert (verifier.copy.state, verifier.copy.size) == ("lost", 0)
    assert "copy.lost" in caplog.messages
    assert verifier.check(host.issuer.mint()).status == 200
    await verifier.feed.step()
    await verifier.keys.step()


async def test_nothing_is_acknowledged_while_a_stale_copy_could_count_as_fresh(
    host: VerifierHost, tmp_path: Path
) -> None:
    """A disk that became read-only: neither written nor removed."""
    verifier = await synced(host)
    file = verifier.copy.file
    assert file is not None
    break_disk(verifier)
    file.path = tmp_path  # a directory is not unlinked
    host.issuer.revoke(EntryKind.SID, "dead")
    for _ in range(2):
        with pytest.raises(CopyError):
            await verifier.feed.step()
        assert verifier.feed.position == 0
    token = host.issuer.mint(sid="dead")
    assert verifier.check(token).status == 401
    host.clock.advance(30)
    await verifier.feed.step()
    assert verifier.feed.position == 1


async def test_the_verifier_continues_without_a_usable_directory(
    tmp_path: Path,
) -> None:
    (tmp_path / "state").write_text("a file stands here")
    host = VerifierHost(tmp_path / "state" / "copies")
    verifier = await host.start()
    assert verifier.copy.state == "lost"
    await verifier.sync()
    assert verifier.check(host.issuer.mint()).status == 200


async def test_compaction_drops_expired_entries_and_keeps_the_rest(
    host: VerifierHost,
) -> None:
    verifier = await synced(host)
    for n in range(6_000):
        host.issuer.revoke(EntryKind.SID, f"old-{n}")
    await verifier.feed.step()
    host.clock.advance(1_000)  # past the lifetime and the margin
    for n in range(6_000):
        host.issuer.revoke(EntryKind.SID, f"new-{n}")
    await verifier.feed.step()
    await verifier.keys.step()
    size = verifier.copy.size
    compacting = asyncio.create_task(compact(verifier.copy, host.clock.now()))
    await asyncio.sleep(0)
    host.issuer.revoke(EntryKind.SID, "dead")
    await verifier.feed.step()
    assert not compacting.done()
    await compacting
    assert verifier.copy.size == file_of(host).stat().st_size < size * 0.6
    assert not has_record(file_of(host), RecordKind.ENTRIES, b'"old-')
    host.issuer.revoke(EntryKind.SID, "deader")
    await verifier.feed.step()
    kill(verifier)
    again = await host.start()
    assert again.feed.position == 12_002
    assert len(again.trust.snapshot.own.revocations) == 6_002
    assert again.check(host.issuer.mint()).status == 200
    for sid in ("new-0", "new-5999", "dead", "deader"):
        assert again.check(host.issuer.mint(sid=sid)).status == 401
    assert again.feed.replaces == (verifier.copy.identity.follower,)


def test_compaction_keeps_an_entry_for_the_margin_past_its_end() -> None:
    """The clock that set the end, and this one, may differ."""
    row = [1, "sid", "s", 0, 1_000]
    payload = orjson.dumps([row])
    assert living_rows(payload, 1_000 + PRUNE_MARGIN) == [row]
    assert living_rows(payload, 1_000 + PRUNE_MARGIN + 1) == []


async def test_a_copy_is_compacted_when_most_of_it_is_past(host: VerifierHost) -> None:
    verifier = await synced(host)
    filler = [(1, "jti", "x" * 200, 0, 0)] * 5_000
    while verifier.copy.size < COMPACT_SLACK + 100_000:
        verifier.copy.write_entries(filler)
    assert not verifier.copy.is_bloated(100_000)
    assert verifier.copy.is_bloated(0)

    async def sleep(seconds: float) -> None:
        if verifier.copy.size < COMPACT_SLACK:
            raise asyncio.CancelledError

    with pytest.raises(asyncio.CancelledError):
        await keep_compact(verifier.copy, lambda: 0, host.clock.now, sleep)
    assert verifier.copy.size < 10_000
    assert len(host.copies()) == 1


async def test_copy_that_reads_back_differently_is_given_up(host: VerifierHost) -> None:
    verifier = await synced(host)
    host.issuer.revoke(EntryKind.SID, "dead")
    await verifier.feed.step()
    path = file_of(host)
    with path.open("r+b") as file:
        file.seek(-5, os.SEEK_END)
        (byte,) = file.read(1)
        file.seek(-5, os.SEEK_END)
        file.write(bytes([byte ^ 1]))
    with pytest.raises(CopyDamagedError):
        await compact(verifier.copy, host.clock.now())
    assert host.copies() == [path]


async def test_the_lock_of_a_file_that_was_compacted_away_proves_nothing(
    host: VerifierHost,
) -> None:
    """Its writer lives, in another file under the same name."""
    verifier = await synced(host)
    path = file_of(host)
    with path.open("r+b") as before, path.open("r+b") as now:
        assert not _try_lock(before.fileno())
        await compact(verifier.copy, host.clock.now())
        assert _try_lock(before.fileno())
        assert not _is_still_there(path, before.fileno())
        assert not _is_still_there(path, now.fileno())
    with path.open("r+b") as after:
        assert _is_still_there(path, after.fileno())
        assert not _try_lock(after.fileno())


async def test_unfinished_files_are_tidied_away_unless_somebody_writes_them(
    host: VerifierHost,
) -> None:
    verifier = await synced(host)
    (host.directory / "left-behind.new").write_bytes(b"half")
    being_made = CopyFile.create(host.directory, "made", verifier.copy.identity)
    other = await host.start(workers=2)
    assert being_made.path.exists()
    assert len(host.copies()) == 3
    being_made.close()
    kill(other)
    kill(verifier)
