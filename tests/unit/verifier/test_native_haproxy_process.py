"""What one HAProxy worker is sent, and what it has then."""

from __future__ import annotations

import asyncio
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from shared.feed import EntryKind, FeedEntry
from shared.token_form import encode_header
from tests.support.haproxy_sites import NEVER, TERMS, ProcessSite
from tests.support.tokens import signing_key
from verifier.native.haproxy.process import HaproxyProcess
from verifier.native.writer import ConnectionEndedError, WriteError


@pytest.fixture
def site() -> Iterator[ProcessSite]:
    # Its path must be short enough for a socket.
    with tempfile.TemporaryDirectory() as name:
        yield ProcessSite(Path(name))


def test_worker_has_everything_and_the_window_last(site: ProcessSite) -> None:
    async def story() -> None:
        site.revoke(EntryKind.SID, "s")
        site.revoke(EntryKind.JTI, "j")
        site.revoke(EntryKind.USER, "u", 3)
        site.revoke(EntryKind.CLIENT, "c", 4)
        await site.write()
        find = site.worker.find
        assert find("sessions", "s")
        assert find("tokens", "j")
        assert (find("minimums", "u"), find("minimums", "c")) == ("3", "4")
        (key,) = site.content().keys
        path = site.directory.key_path(key)
        assert find("headers", encode_header(key.kid)) == str(path)
        window = site.content().window
        assert site.worker.window == f"{window.opens_at}:{window.closes_at - 1}"
        assert site.worker.commands[-1].startswith("commit acl @1")
        assert site.worker.commands[-1].endswith("window.acl")

    site.play(story())


def test_without_news_of_our_own_a_worker_is_closed_before_its_maps_are_replaced(
    site: ProcessSite,
) -> None:
    """Our copy may be older than what the process before us wrote into the worker."""

    async def story() -> None:
        site.revoke(EntryKind.SID, "s")
        await site.write()
        site.process.close()
        restarted = site.restarted()
        assert not restarted.content().window.is_open
        site.worker.refuses = "commit map @2 " + str(site.directory.maps.sessions)
        with pytest.raises(WriteError):
            await restarted.write()
        # As if the new process had been killed there.
        assert site.worker.window == ""
        assert site.worker.find("sessions", "s")
        site.worker.refuses = ""
        await restarted.write()
        assert site.worker.find("sessions", "s") is None
        assert site.worker.window == ""
        # It has everything, so nothing is closed.
        restarted.revoke(EntryKind.SID, "s")
        restarted.renew()
        site.worker.commands.clear()
        await restarted.write()
        assert site.worker.commands[-1].startswith("commit acl @4")
        assert site.worker.find("sessions", "s")
        restarted.process.close()

    site.play(story())


def test_restart_with_news_of_our_own_closes_nothing(site: ProcessSite) -> None:
    """Its entries are all that were confirmed."""

    async def story() -> None:
        site.revoke(EntryKind.SID, "s")
        await site.write()
        site.process.close()
        restarted = site.restarted()
        restarted.revoke(EntryKind.SID, "s")
        restarted.renew()
        site.worker.commands.clear()
        await restarted.write()
        restarted.process.close()
        assert site.worker.commands[-1].endswith("window.acl")
        assert len([c for c in site.worker.commands if "window.acl" in c]) == 3

    site.play(story())


def test_worker_with_rules_of_before_is_closed_first_without_news_of_our_own(
    site: ProcessSite,
) -> None:
    async def story() -> None:
        site.revoke(EntryKind.SID, "s")
        await site.write()
        site.process.close()
        restarted = site.restarted()
        stricter = TERMS._replace(required_scopes=("orders:write",))
        restarted.terms = {"default": stricter}
        assert restarted.directory.update(restarted.content().keys, restarted.terms)
        await restarted.write()
        assert site.worker.window == ""
        restarted.process.close()

    site.play(story())


def test_only_changes_are_written_and_the_window_after_them(site: ProcessSite) -> None:
    async def story() -> None:
        await site.write()
        site.worker.commands.clear()
        site.revoke(EntryKind.SID, "s")
        site.clock.advance(1)
        site.renew()
        await site.write()
        added, prepared, window, committed = site.worker.commands
        assert added.startswith("add map /")
        assert added.endswith("sessions.map <<")
        path = site.directory.maps.window
        assert prepared == f"prepare acl {path}"
        assert window == f"add acl @2 {path} {site.worker.window}"
        assert committed == f"commit acl @2 {path}"
        assert site.worker.find("sessions", "s")
        site.worker.commands.clear()
        await site.write()
        assert site.worker.commands == []

    site.play(story())


def test_minimum_is_raised_though_the_first_entry_of_a_key_counts(
    site: ProcessSite,
) -> None:
    async def story() -> None:
        await site.write()
        for kind, generation, in_force in (
            (EntryKind.USER, 2, "2"),
            (EntryKind.USER, 5, "5"),
            (EntryKind.CLIENT, 4, "5"),
            (EntryKind.CLIENT, 2**60, str(10**15)),
        ):
            site.revoke(kind, "u", generation)
            await site.write()
            assert site.worker.find("minimums", "u") == in_force
        # Twice before one write.
        site.revoke(EntryKind.USER, "v", 2)
        site.revoke(EntryKind.USER, "v", 3)
        await site.write()
        assert site.worker.map("minimums").lines.count(("v", "3")) == 1

    site.play(story())


@pytest.mark.parametrize("key", ["#1", "a;b", "<<", "@1", "a<<", "'x'", "~"])
def test_key_with_characters_of_commands_is_written_as_it_is(
    site: ProcessSite, key: str
) -> None:
    async def story() -> None:
        await site.write()
        site.revoke(EntryKind.SID, key)
        site.revoke(EntryKind.USER, key, 2)
        await site.write()
        site.revoke(EntryKind.USER, key, 3)
        await site.write()
        assert site.worker.find("sessions", key)
        assert site.worker.find("minimums", key) == "3"

    site.play(story())


@pytest.mark.parametrize(
    "key", ["a b", "a\n\nset map x", "a\r", "", "\u00e9", 'a"', "a\\", "a%", "a,b", "a" * 257]
)  # fmt: skip
def test_key_that_no_passing_token_has_is_in_force_unwritten(
    site: ProcessSite, key: str
) -> None:
    """The rules refuse a token with such a value, so nothing has to be looked up."""

    async def story() -> None:
        await site.write()
        before = list(site.worker.commands)
        for kind in EntryKind:
            site.trust.entries.add([FeedEntry(1, kind, key, 1, NEVER)])
        await site.write()
        assert site.worker.commands == before
        site.process.close()
        site.process = HaproxyProcess(
            site.worker.pid, str(site.haproxy.socket), site.directory
        )
        await site.write()
        assert site.worker.map("sessions").lines == []
        assert site.worker.map("minimums").lines == []

    site.play(story())


def test_revoked_key_is_looked_up_no_more(site: ProcessSite) -> None:
    async def story() -> None:
        other = signing_key("second")
        site.trust_keys(signing_key(), other)
        await site.write()
        kept, gone = site.content().keys
        site.revoke(EntryKind.KID, gone.kid)
        await site.write()
        assert site.worker.find("headers", encode_header(gone.kid)) is None
        assert site.worker.find("headers", encode_header(kept.kid))

    site.play(story())


def test_worker_that_has_loaded_none_of_our_keys_stays_closed(
    site: ProcessSite,
) -> None:
    """R38: else it would answer good tokens 401, as on a first start without keys."""

    async def story() -> None:
        first, other = signing_key(), signing_key("second")
        site.trust_keys(other)
        site.directory.update(site.content().keys, site.terms)
        await site.write()
        assert site.worker.window == ""
        # One that it has is enough: tokens of the others come later.
        site.trust_keys(first, other)
        site.directory.update(site.content().keys, site.terms)
        await site.write()
        window = site.content().window
        assert site.worker.window == (f"{window.opens_at}:{window.closes_at - 1}")

    site.play(story())


@pytest.mark.parametrize("refused", ["add map", "prepare", "commit", "add acl"])
def test_refused_command_is_an_error_and_everything_is_sent_again(
    site: ProcessSite, refused: str
) -> None:
    async def story() -> None:
        site.revoke(EntryKind.SID, "s")
        await site.write()
        site.revoke(EntryKind.USER, "u", 1)
        site.clock.advance(1)
        site.renew()
        if refused in {"prepare", "commit"}:
            site.trust_keys(signing_key("second"))
        site.worker.refuses = refused
        with pytest.raises(WriteError, match=f"HAProxy refused {refused}"):
            await site.write()
        site.worker.refuses = ""
        site.worker.commands.clear()
        await site.write()
        assert site.worker.commands[0].startswith("show env")
        assert site.worker.find("minimums", "u") == "1"
        assert site.worker.map("sessions").lines == [("s", "1")]

    site.play(story())


def test_worker_with_the_process_id_of_another_one_stays_closed(
    site: ProcessSite,
) -> None:
    """Only a worker that was filled has a window that can be changed."""

    async def story() -> None:
        site.revoke(EntryKind.SID, "s")
        await site.write()
        site.haproxy.restart_in_place()
        site.clock.advance(1)
        site.renew()
        with pytest.raises(WriteError, match="another worker with the same"):
            await site.write()
        assert site.worker.window is None
        await site.write()
        assert site.worker.find("sessions", "s")
        assert site.worker.window

    site.play(story())


@pytest.mark.parametrize("mark", ["", "0123456789abcdef.0123456789abcdef"])
def test_worker_with_rules_of_another_process_gets_nothing(
    site: ProcessSite, mark: str
) -> None:
    """It may read the maps in another way."""

    async def story() -> None:
        site.worker.mark = mark
        with pytest.raises(WriteError, match="other rules"):
            await site.write()
        assert site.process.mark == mark
        assert len(site.worker.commands) == 1

    site.play(story())


def test_worker_with_rules_of_before_gets_revocations_and_no_window(
    site: ProcessSite,
) -> None:
    """It closes when its last window is over, and revokes until then."""

    async def story() -> None:
        site.revoke(EntryKind.SID, "s")
        await site.write()
        window = site.worker.window
        site.terms = {"default": TERMS._replace(required_scopes=("orders:write",))}
        assert site.directory.update(site.content().keys, site.terms)
        site.clock.advance(1)
        site.renew()
        site.revoke(EntryKind.SID, "t")
        await site.write()
        assert site.worker.find("sessions", "t")
        assert site.worker.window == window
        # Also when everything is written anew.
        site.process.close()
        site.process = HaproxyProcess(
            site.worker.pid, str(site.haproxy.socket), site.directory
        )
        await site.write()
        assert site.worker.window == window
        # The policy of before is back.
        site.directory.update(site.content().keys, {"default": TERMS})
        await site.write()
        assert site.worker.window != window

    site.play(story())


def test_worker_that_the_master_does_not_have_is_gone(site: ProcessSite) -> None:
    async def story() -> None:
        await site.write()
        site.haproxy.current = site.haproxy.new_worker()
        site.revoke(EntryKind.SID, "s")
        with pytest.raises(ConnectionEndedError):
            await site.write()
        assert not site.process.is_abandoned

    site.play(story())


def test_everything_is_written_when_much_was_pruned(site: ProcessSite) -> None:
    async def story() -> None:
        now = site.clock.now()
        entries = [
            FeedEntry(1, EntryKind.SID, f"s{n}", 0, NEVER if n < 4 else now - 1_000)
            for n in range(10)
        ]
        site.trust.enforce(entries)
        await site.write()
        site.trust.entries.prune(now)
        site.revoke(EntryKind.SID, "t")
        await site.write()
        names = [name for name, _ in site.worker.map("sessions").lines]
        assert names == ["s0", "s1", "s2", "s3", "t"]

    site.play(story())


def test_many_entries_fit_into_the_smallest_buffer(site: ProcessSite) -> None:
    async def story() -> None:
        entries = [
            FeedEntry(1, EntryKind.SID, f"{n:0256}", 0, NEVER) for n in range(200)
        ]
        site.trust.enforce(entries)
        await site.write()
        assert len(site.worker.map("sessions").lines) == 200
        added = [c for c in site.worker.commands if "sessions.map <<" in c]
        assert len(added) == 5

    site.play(story())


def test_without_a_master_nothing_is_written(site: ProcessSite) -> None:
    with pytest.raises(WriteError, match="No such file"):
        asyncio.run(site.write())
