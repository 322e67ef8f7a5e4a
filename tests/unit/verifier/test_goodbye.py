"""A clean stop: no answer any more, then no age on disk, and only then the goodbye.

Why the order matters: docs/revocation.md; tests/model has each of them the other way.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Mapping
from pathlib import Path

import pytest

from shared.feed import (
    FOLLOWER_HEADER,
    FOLLOWER_REPLACES_HEADER,
    GOODBYE_PATH,
    EntryKind,
)
from tests.support.cold_starts import KEY, VerifierHost, kill
from tests.support.gatehouse_verifier import SimulatedVerifier
from tests.support.issuer_simulator import FEED_TOKEN, FEED_URL
from verifier.disk.copy_format import NEVER, read_mark
from verifier.sync.fetch import Fetched, FetchError
from verifier.sync.goodbye import Post, say_goodbye, stop_answering
from verifier.wire.public_port import PublicPort


@pytest.fixture
def host(tmp_path: Path) -> VerifierHost:
    return VerifierHost(tmp_path / "state")


async def synced(host: VerifierHost) -> SimulatedVerifier:
    verifier = await host.start()
    await verifier.sync()
    return verifier


async def stop(verifier: SimulatedVerifier, post: Post | None = None) -> None:
    """Stop as `Runtime` does once its server has drained and its tasks have ended."""
    port = PublicPort(verifier.gate, lambda _: True, 10, 0.0)
    stop_answering(verifier.trust, port.abort_all)
    await say_goodbye(
        verifier.feed, verifier.copy, post or verifier.issuer.post, patience=0.01
    )
    verifier.copy.close()


def age_on_disk(host: VerifierHost) -> float:
    (path,) = host.copies()
    with path.open("rb") as file:
        return read_mark(file.fileno(), KEY).fresh_until


async def test_it_names_itself_and_shows_the_feed_credential(
    host: VerifierHost,
) -> None:
    verifier = await synced(host)
    await stop(verifier)
    assert verifier.issuer.goodbyes == [
        {
            "Authorization": f"Bearer {FEED_TOKEN}",
            FOLLOWER_HEADER: verifier.feed.source.follower_id,
        }
    ]


async def test_at_the_goodbye_nothing_answers_and_the_copy_has_no_age(
    host: VerifierHost,
) -> None:
    verifier = await synced(host)
    token = host.issuer.mint()
    assert verifier.check(token).status == 200
    assert age_on_disk(host) > host.clock.monotonic()
    seen: list[tuple[str, int, float]] = []

    async def look(url: str, headers: Mapping[str, str]) -> Fetched:
        seen.append((url, verifier.check(token).status, age_on_disk(host)))
        return await host.issuer.post(url, headers)

    await stop(verifier, look)
    assert seen == [(f"{FEED_URL}{GOODBYE_PATH}", 503, NEVER)]
    assert verifier.check(token).status == 503


async def test_the_next_process_answers_once_it_has_a_page_of_its_own(
    host: VerifierHost,
) -> None:
    host.issuer.revoke(EntryKind.SID, "dead")
    await stop(await synced(host))
    good, dead = host.issuer.mint(), host.issuer.mint(sid="dead")
    successor = await host.start()
    assert successor.check(good).status == 503
    host.issuer.revoke(EntryKind.SID, "dead meanwhile")
    await successor.feed.step()
    assert successor.check(good).status == 200
    assert successor.check(dead).status == 401
    assert successor.check(host.issuer.mint(sid="dead meanwhile")).status == 401
    # It went on from the position of the copy: the entries are there.
    assert host.issuer.fetches[-1].startswith(f"{FEED_URL}?")


async def test_second_stop_names_the_processes_it_had_replaced(
    host: VerifierHost,
) -> None:
    """It may have answered by the lease of the one before it, and by none of its
    own.
    """
    killed = await synced(host)
    kill(killed)
    second = await host.start()
    assert second.check(host.issuer.mint()).status == 200
    await stop(second)
    (said,) = host.issuer.goodbyes
    assert said[FOLLOWER_HEADER] == second.feed.source.follower_id
    assert said[FOLLOWER_REPLACES_HEADER] == killed.feed.source.follower_id
    assert (await host.start()).check(host.issuer.mint()).status == 503


async def test_process_that_overlaps_with_its_successor_ends_only_its_own_lease(
    host: VerifierHost,
) -> None:
    """A reload: the new process is there before the old one stops."""
    old = await synced(host)
    new = await synced(host)
    await stop(old)
    (said,) = host.issuer.goodbyes
    assert said[FOLLOWER_HEADER] == old.feed.source.follower_id
    assert FOLLOWER_REPLACES_HEADER not in said
    assert new.check(host.issuer.mint()).status == 200
    kill(new)
    assert (await host.start()).check(host.issuer.mint()).status == 200


async def test_while_the_issuer_is_away_the_copy_keeps_its_age(
    host: VerifierHost,
) -> None:
    """Else an issuer's outage would close a gate that is restarted meanwhile."""
    verifier = await synced(host)
    host.issuer.is_down = True
    verifier.feed.status.failures = 1
    await stop(verifier)
    assert host.issuer.goodbyes == []
    assert (await host.start()).check(host.issuer.mint()).status == 200


async def test_no_goodbye_while_an_unchangeable_copy_still_counts(
    host: VerifierHost, tmp_path: Path
) -> None:
    """A disk that became read-only: neither written nor removed."""
    verifier = await synced(host)
    file = verifier.copy.file
    assert file is not None
    os.dup2(os.open(file.path, os.O_RDONLY), file.descriptor)
    file.path = tmp_path  # a directory is not unlinked
    await stop(verifier)
    assert host.issuer.goodbyes == []


async def test_unwritable_copy_is_removed_before_the_goodbye(
    host: VerifierHost,
) -> None:
    verifier = await synced(host)
    file = verifier.copy.file
    assert file is not None
    os.dup2(os.open(file.path, os.O_RDONLY), file.descriptor)
    await stop(verifier)
    assert host.copies() == []
    assert len(host.issuer.goodbyes) == 1


async def test_lost_goodbye_is_sent_again(host: VerifierHost) -> None:
    """A kept connection that the other side had closed."""
    verifier, said = await synced(host), 0

    async def lose_the_first(url: str, headers: Mapping[str, str]) -> Fetched:
        nonlocal said
        said += 1
        if said == 1:
            raise FetchError("the connection was closed")
        return await host.issuer.post(url, headers)

    await stop(verifier, lose_the_first)
    assert (said, len(host.issuer.goodbyes)) == (2, 1)


async def never(_url: str, _headers: Mapping[str, str]) -> Fetched:
    await asyncio.Event().wait()
    raise AssertionError


async def down(_url: str, _headers: Mapping[str, str]) -> Fetched:
    raise FetchError("the issuer is down")


async def older(_url: str, _headers: Mapping[str, str]) -> Fetched:
    return Fetched(404, {}, b"", 0.0)


@pytest.mark.parametrize("post", [never, down, older])
async def test_a_stop_without_an_answer_ends_all_the_same(
    host: VerifierHost, post: Post, caplog: pytest.LogCaptureFixture
) -> None:
    """The lease runs out; and the copy is void, because it may have arrived."""
    verifier = await synced(host)
    async with asyncio.timeout(30):
        await stop(verifier, post)
    assert "feed.goodbye_failed" in caplog.messages
    assert (await host.start()).check(host.issuer.mint()).status == 503
