"""Answers of a HAProxy that come late, or never."""

from __future__ import annotations

import asyncio
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from shared.feed import EntryKind
from tests.support.haproxy_sites import ProcessSite
from verifier.native.haproxy import map_lines, master
from verifier.native.writer import ConnectionEndedError, WriteError


@pytest.fixture
def site() -> Iterator[ProcessSite]:
    # Its path must be short enough for a socket.
    with tempfile.TemporaryDirectory() as name:
        yield ProcessSite(Path(name))


def test_answer_that_is_owed_comes_before_anything_else(
    site: ProcessSite, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A stopped worker carries its command out when it goes on."""
    monkeypatch.setattr(master, "ANSWER_TIME", 0.05)

    async def story() -> None:
        await site.write()
        site.worker.runs.clear()
        site.worker.commands.clear()
        site.revoke(EntryKind.SID, "s")
        with pytest.raises(WriteError, match="no answer"):
            await site.write()
        waiting = asyncio.create_task(site.write())
        await asyncio.sleep(0.1)
        assert not waiting.done()
        site.worker.runs.set()
        with pytest.raises(WriteError, match="came late"):
            await waiting
        await site.write()
        assert [c.split(" ")[0] for c in site.worker.commands[:2]] == ["add", "show"]
        assert site.worker.map("sessions").lines == [("s", "1")]

    site.play(story())


def test_worker_keeps_what_it_has_when_the_master_was_reloaded(
    site: ProcessSite,
) -> None:
    async def story() -> None:
        site.revoke(EntryKind.SID, "s")
        await site.write()
        worker = site.worker
        site.haproxy.reload()
        await asyncio.sleep(0.01)
        worker.commands.clear()
        site.revoke(EntryKind.SID, "t")
        await site.write()
        assert len(worker.commands) == 1
        assert worker.find("sessions", "t")

    site.play(story())


def test_command_that_was_lost_is_sent_again(site: ProcessSite) -> None:
    async def story() -> None:
        await site.write()
        site.revoke(EntryKind.USER, "u", 1)
        site.worker.loses = "add map"
        with pytest.raises(WriteError, match="ended the connection"):
            await site.write()
        site.worker.loses = ""
        await site.write()
        assert site.worker.find("minimums", "u") == "1"

    site.play(story())


def test_worker_is_abandoned_when_a_minimum_may_come_late(
    site: ProcessSite, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It could lower a minimum that was raised once more in between."""
    monkeypatch.setattr(master, "ANSWER_TIME", 0.05)

    async def story() -> None:
        site.revoke(EntryKind.USER, "u", 1)
        await site.write()
        site.revoke(EntryKind.USER, "u", 2)
        site.worker.runs.clear()
        with pytest.raises(WriteError):
            await site.write()
        site.haproxy.end_connections()
        await asyncio.sleep(0.01)
        with pytest.raises(ConnectionEndedError):
            await site.write()
        assert site.process.is_abandoned
        site.worker.runs.set()

    site.play(story())


def test_worker_left_while_it_raises_a_minimum_is_abandoned(site: ProcessSite) -> None:
    """The old command may be carried out after those of a new following."""

    async def story() -> None:
        site.revoke(EntryKind.USER, "u", 1)
        await site.write()
        site.revoke(EntryKind.USER, "u", 2)
        site.worker.runs.clear()
        writing = asyncio.create_task(site.write())
        async with asyncio.timeout(30):
            while not site.process._is_raising:
                await asyncio.sleep(0.001)
        writing.cancel()
        await asyncio.wait([writing])
        assert not site.process.is_abandoned
        site.process.close()
        assert site.process.is_abandoned
        site.worker.runs.set()

    site.play(story())


def test_map_with_many_entries_may_take_its_time(
    site: ProcessSite, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A late answer made everything be sent again, and the next one was as late."""
    monkeypatch.setattr(master, "ANSWER_TIME", 0.05)
    monkeypatch.setattr(map_lines, "_COMMIT_TIME", 60.0)

    async def story() -> None:
        for kind in (EntryKind.SID, EntryKind.JTI, EntryKind.USER):
            site.revoke(kind, "a")
        site.worker.commit_seconds = 0.2
        await site.write()
        assert site.worker.find("sessions", "a")
        assert site.worker.window

    site.play(story())


def test_minimum_that_was_refused_does_not_come_late(site: ProcessSite) -> None:
    """It is answered: the end of a connection after that abandons nothing."""

    async def story() -> None:
        site.revoke(EntryKind.USER, "u", 1)
        await site.write()
        site.worker.refuses = "set map"
        site.revoke(EntryKind.USER, "u", 2)
        with pytest.raises(WriteError, match="refused set map"):
            await site.write()
        site.process.close()
        assert not site.process.is_abandoned
        site.worker.refuses = ""
        await site.write()
        assert site.worker.find("minimums", "u") == "2"

    site.play(story())


def test_worker_that_does_not_say_its_keys_is_open_and_failing(
    site: ProcessSite,
) -> None:
    """As one that was started by a release before."""

    async def story() -> None:
        site.worker.loaded = ""
        await site.write()
        assert site.worker.window
        # It may lack the next one: nobody would know why its tokens are refused.
        assert "which keys it has" in site.process.trouble

    site.play(story())


def test_answer_that_came_while_the_connection_was_closed_counts(
    site: ProcessSite, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As by a reload of ours. Nothing can come late: the worker is written into again,
    and does not count as abandoned.
    """
    monkeypatch.setattr(master, "ANSWER_TIME", 0.05)

    async def story() -> None:
        site.revoke(EntryKind.USER, "u", 1)
        await site.write()
        site.revoke(EntryKind.USER, "u", 2)
        site.worker.runs.clear()
        with pytest.raises(WriteError, match="no answer"):
            await site.write()
        waiting = asyncio.create_task(site.write())
        await asyncio.sleep(0)
        connection = site.process._connection
        assert connection is not None
        site.worker.runs.set()
        async with asyncio.timeout(30):
            while not connection._reader._buffer:  # type: ignore[attr-defined]
                await asyncio.sleep(0)
        assert not waiting.done()
        site.process.close()
        with pytest.raises(WriteError, match="came late"):
            await waiting
        assert not site.process.is_abandoned
        await site.write()
        assert site.worker.find("minimums", "u") == "2"

    site.play(story())
