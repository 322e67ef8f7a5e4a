"""Stories of a verifier and its issuer: what it takes over, and what it never gives
up.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from urllib.parse import parse_qs, urlsplit

import pytest

from shared.feed import (
    FOLLOWER_HEADER,
    FOLLOWER_ON_STALE_HEADER,
    FOLLOWER_REPLACES_HEADER,
    FOLLOWER_STALENESS_HEADER,
    EntryKind,
    FeedError,
)
from tests.support.gatehouse_verifier import SimulatedVerifier, started, unstarted
from tests.support.issuer_simulator import (
    FEED_TOKEN,
    FEED_URL,
    JWKS_URL,
    Recorder,
    answering,
    replace_body,
    truncated,
    with_body,
)
from verifier.sync.feed import MAX_PAGE_BYTES, FeedFollower
from verifier.sync.fetch import Fetched, FetchError
from verifier.sync.keys import MAX_JWKS_BYTES
from verifier.sync.staleness import Failure, SourceStatus


def is_revoked(verifier: SimulatedVerifier, sid: str) -> bool:
    """Return whether the sessions' list names it, with anything else in force."""
    return (
        verifier.trust.snapshot.own.revocations.sids.minimum_generation(sid) is not None
    )


# --- the feed ------------------------------------------------------------------------


async def test_a_verifier_begins_with_a_whole_snapshot() -> None:
    verifier = unstarted()
    for n in range(3):
        verifier.issuer.revoke(EntryKind.SID, f"s-{n}")
    await verifier.feed.step()
    assert verifier.issuer.fetches == [f"{FEED_URL}/snapshot"]
    assert verifier.feed.epoch == verifier.issuer.epoch
    assert (verifier.feed.position, verifier.feed.head) == (3, 3)
    assert all(is_revoked(verifier, f"s-{n}") for n in range(3))
    fresh_until = verifier.clock.monotonic() + 30
    assert verifier.trust.snapshot.own.fresh_until == fresh_until
    assert verifier.feed.status == SourceStatus(last_success=verifier.clock.monotonic())


async def test_later_requests_get_new_entries_and_acknowledge_the_position() -> None:
    verifier = await started()
    verifier.issuer.revoke(EntryKind.SID, "s")
    await verifier.feed.step()
    assert is_revoked(verifier, "s")
    await verifier.feed.step()
    asked = [parse_qs(urlsplit(url).query) for url in verifier.issuer.fetches[-2:]]
    assert [query["after"] for query in asked] == [["0"], ["1"]]
    epoch, wait, limit = [verifier.issuer.epoch], ["5"], ["10000"]
    for query in asked:
        rest = {n: query[n] for n in ("epoch", "wait", "limit")}
        assert rest == {"epoch": epoch, "wait": wait, "limit": limit}


@pytest.mark.parametrize("outage", [False, True], ids=["start", "outage"])
async def test_the_first_answer_is_not_held(*, outage: bool) -> None:
    """A gate that starts from its disk copy, or was cut off, was closed for 5 s
    more.
    """
    verifier = await started()
    feed = verifier.feed
    if outage:
        feed.status.failed(Failure(0.0, "http", "away", FEED_URL))
    else:
        feed = FeedFollower(feed.source, verifier.issuer.fetch, verifier.trust)
        feed.resume(verifier.issuer.epoch, 0)
    await feed.step()
    feed.status.succeeded(verifier.clock.monotonic())
    await feed.step()
    asked = [parse_qs(urlsplit(url).query) for url in verifier.issuer.fetches[-2:]]
    assert [query["wait"] for query in asked] == [["0"], ["5"]]


async def test_credential_is_sent_to_the_feed_only() -> None:
    """R23; and names itself and its bound, for the confirmation of a logout."""
    verifier = unstarted(max_staleness=45)
    recorder = Recorder(verifier.issuer)
    verifier.feed._fetch = verifier.keys._fetch = recorder.fetch
    await verifier.keys.step()
    await verifier.feed.step()
    await verifier.feed.step()
    jwks, snapshot, page = recorder.headers
    assert jwks == {"Accept": "application/jwk-set+json, application/json"}
    assert snapshot.pop("Accept") == "application/x-ndjson, application/json;q=0.5"
    assert page.pop("Accept") == "application/json"
    assert snapshot == page
    assert page["Authorization"] == f"Bearer {FEED_TOKEN}"
    assert page[FOLLOWER_HEADER] == "0b7c9a1e-0000-4000-8000-000000000001"
    assert page[FOLLOWER_STALENESS_HEADER] == "45"
    assert recorder.limits[0] == (0.0, MAX_JWKS_BYTES)
    assert recorder.limits[2] == (5, MAX_PAGE_BYTES)


@pytest.mark.parametrize(
    ("bound", "header"), [(11, "11"), (11.2, "12"), (30.999, "31")]
)
async def test_staleness_bound_is_sent_in_whole_seconds_rounded_up(
    bound: float, header: str
) -> None:
    """The issuer waits that long before it answers `confirmed` without us."""
    verifier = unstarted(max_staleness=bound)
    recorder = Recorder(verifier.issuer)
    verifier.feed._fetch = recorder.fetch
    await verifier.feed.step()
    assert recorder.headers[0][FOLLOWER_STALENESS_HEADER] == header


async def test_a_verifier_that_may_answer_when_stale_declares_it() -> None:
    verifier = unstarted()
    recorder = Recorder(verifier.issuer)
    source = verifier.feed._source
    for allows_stale in (False, True):
        said = source._replace(allows_stale=allows_stale)
        await FeedFollower(said, recorder.fetch, verifier.trust).step()
    assert FOLLOWER_ON_STALE_HEADER not in recorder.headers[0]
    assert recorder.headers[1][FOLLOWER_ON_STALE_HEADER] == "allow"


async def test_the_replaced_followers_are_sent_until_the_issuer_has_answered() -> None:
    verifier = unstarted()
    recorder = Recorder(verifier.issuer)
    verifier.feed._fetch = recorder.fetch
    verifier.feed.replaces = ("id-1", "id-2")
    await verifier.feed.step()  # the snapshot
    verifier.issuer.is_down = True
    with pytest.raises(FetchError):
        await verifier.feed.step()
    verifier.issuer.is_down = False
    await verifier.feed.step()
    await verifier.feed.step()
    said = [headers.get(FOLLOWER_REPLACES_HEADER) for headers in recorder.headers]
    assert said == ["id-1,id-2"] * 3 + [None]


async def test_a_verifier_that_pages_is_not_fresh_until_it_has_all() -> None:
    verifier = await started()
    before = verifier.trust.snapshot.own.fresh_until
    for n in range(5):
        verifier.issuer.revoke(EntryKind.SID, f"s-{n}")
    verifier.issuer.page_limit = 2
    verifier.clock.advance(20)
    for position in (2, 4):
        await verifier.feed.step()
        assert (verifier.feed.position, verifier.feed.head) == (position, 5)
        assert verifier.trust.snapshot.own.fresh_until == before
        assert is_revoked(verifier, f"s-{position - 1}")
        assert not is_revoked(verifier, f"s-{position}")
    await verifier.feed.step()
    assert verifier.feed.position == 5
    assert verifier.trust.snapshot.own.fresh_until == before + 20


async def test_age_counts_from_the_sending_of_the_request() -> None:
    """docs/design.md, "The revocation feed": the age counts from the sending."""
    verifier = await started()
    verifier.clock.advance(10)
    verifier.issuer.lie = lambda a: a._replace(sent_at=a.sent_at - 8)
    await verifier.feed.step()
    snapshot = verifier.trust.snapshot
    assert snapshot.own.fresh_until == verifier.clock.monotonic() - 8 + 30
    # and a late answer to an older question takes nothing away
    verifier.issuer.lie = lambda a: a._replace(sent_at=a.sent_at - 9)
    await verifier.feed.step()
    assert verifier.trust.snapshot.own.fresh_until == snapshot.own.fresh_until


async def test_entries_are_applied_before_the_position_moves() -> None:
    """A position sent to the issuer is a promise: all up to it is refused."""
    verifier = await started()
    for n in range(12_000):
        verifier.issuer.revoke(EntryKind.SID, f"s-{n}")
    verifier.feed.epoch = None  # as after a start: the snapshot has no page limit
    task = asyncio.create_task(verifier.feed.step())
    seen = set()
    while not task.done():
        seen.add((len(verifier.trust.snapshot.own.revocations), verifier.feed.position))
        await asyncio.sleep(0)
    assert seen == {(0, 0), (5_000, 0), (10_000, 0), (12_000, 0)}
    assert verifier.feed.position == 12_000


async def test_a_restored_backup_un_revokes_nothing() -> None:
    """409, then the snapshot of the new epoch, and the union with the old entries."""
    verifier = await started()
    verifier.issuer.revoke(EntryKind.SID, "before-backup")
    backup = verifier.issuer.head
    verifier.issuer.revoke(EntryKind.SID, "lost-by-restore")
    await verifier.feed.step()
    verifier.issuer.restore_backup(backup)
    verifier.issuer.revoke(EntryKind.SID, "after-restore")
    verifier.clock.advance(10)
    await verifier.feed.step()
    assert verifier.issuer.fetches[-1] == f"{FEED_URL}/snapshot"
    assert verifier.feed.epoch == verifier.issuer.epoch
    assert verifier.feed.position == 2
    for sid in ("before-backup", "lost-by-restore", "after-restore"):
        assert is_revoked(verifier, sid)
    assert verifier.trust.snapshot.own.fresh_until == verifier.clock.monotonic() + 30


async def test_a_count_that_went_back_is_a_snapshot_as_well() -> None:
    verifier = await started()
    verifier.issuer.revoke(EntryKind.SID, "a")
    verifier.issuer.revoke(EntryKind.SID, "b")
    await verifier.feed.step()
    epoch = verifier.issuer.epoch
    verifier.issuer.restore_backup(1)
    verifier.issuer.epoch = epoch
    await verifier.feed.step()
    assert verifier.feed.position == 1
    assert is_revoked(verifier, "b")


LIES = [
    pytest.param(with_body(lambda b: b.update(iss="https://evil.test")), id="iss"),
    pytest.param(with_body(lambda b: b.update(epoch="other")), id="epoch"),
    pytest.param(with_body(lambda b: b.update(after=0)), id="after too low"),
    pytest.param(with_body(lambda b: b.update(after=2)), id="after too high"),
    pytest.param(with_body(lambda b: b.update(v=2)), id="version"),
    pytest.param(with_body(lambda b: b.pop("head")), id="member missing"),
    pytest.param(with_body(lambda b: b["entries"][0].pop()), id="entry cut off"),
    pytest.param(
        with_body(lambda b: b["entries"][1].__setitem__(1, "tenant")),
        id="unknown kind behind a known one",
    ),
    pytest.param(with_body(lambda b: b["entries"].reverse()), id="disorder"),
    pytest.param(with_body(lambda b: b.update(to=1, entries=[])), id="no further"),
    pytest.param(truncated, id="truncated"),
    pytest.param(lambda a: replace_body(a, b"<html>ok</html>"), id="HTML"),
    pytest.param(lambda a: replace_body(a, b""), id="empty"),
    pytest.param(
        lambda a: replace_body(a, b" " * (MAX_PAGE_BYTES + 1)), id="too large"
    ),
    *(pytest.param(answering(s), id=f"{s}") for s in (204, 301, 304, 401, 404, 500)),
]


@pytest.mark.parametrize("lie", LIES)
async def test_a_page_that_is_not_right_is_refused_whole(
    lie: Callable[[Fetched], Fetched],
) -> None:
    """Nothing changes: no entry, no position, no freshness."""
    verifier = await started()
    verifier.issuer.revoke(EntryKind.SID, "known")
    await verifier.feed.step()
    verifier.issuer.revoke(EntryKind.SID, "new")
    verifier.issuer.revoke(EntryKind.SID, "newer")
    verifier.clock.advance(5)
    before, epoch = verifier.trust.snapshot, verifier.feed.epoch
    verifier.issuer.lie = lie
    with pytest.raises((FeedError, FetchError)):
        await verifier.feed.step()
    assert verifier.trust.snapshot is before
    assert (verifier.feed.epoch, verifier.feed.position) == (epoch, 1)
    verifier.issuer.lie = None
    await verifier.feed.step()
    assert verifier.feed.position == 3
    assert is_revoked(verifier, "newer")


@pytest.mark.parametrize(
    "lie",
    [
        pytest.param(with_body(lambda b: b.update(iss="https://evil.test")), id="iss"),
        pytest.param(with_body(lambda b: b.update(after=1)), id="not from 0"),
        pytest.param(with_body(lambda b: b.update(head=b["to"] + 1)), id="not to head"),
        pytest.param(truncated, id="truncated"),
        pytest.param(answering(409), id="409"),
        pytest.param(answering(500), id="500"),
    ],
)
async def test_a_snapshot_that_is_not_right_is_refused_whole(
    lie: Callable[[Fetched], Fetched],
) -> None:
    verifier = unstarted()
    verifier.issuer.revoke(EntryKind.SID, "s-1")
    verifier.issuer.revoke(EntryKind.SID, "s-2")
    verifier.issuer.entries.pop(0)
    before = verifier.trust.snapshot
    verifier.issuer.lie = lie
    with pytest.raises((FeedError, FetchError)):
        await verifier.feed.step()
    assert verifier.trust.snapshot is before
    assert verifier.feed.epoch is None


async def test_a_wrong_feed_credential_gives_nothing() -> None:
    verifier = unstarted()
    source = verifier.feed._source._replace(token="wrong")
    feed = FeedFollower(source, verifier.issuer.fetch, verifier.trust)
    with pytest.raises(FetchError, match="401"):
        await feed.step()


async def test_the_feed_and_the_keys_do_not_undo_each_other() -> None:
    verifier = unstarted()
    await verifier.feed.step()
    fresh_until = verifier.trust.snapshot.own.fresh_until
    await verifier.keys.step()
    assert verifier.trust.snapshot.own.fresh_until == fresh_until
    verifier.issuer.revoke(EntryKind.SID, "s")
    await verifier.feed.step()
    assert verifier.trust.snapshot.own.keys.keys
    assert verifier.trust.snapshot.own.keys_until > 0


async def test_the_urls_are_the_configured_ones() -> None:
    """R21: no text of an issuer or a token changes our addresses."""
    verifier = await started()
    token = verifier.issuer.mint()
    verifier.check(token)
    assert {url.partition("?")[0] for url in verifier.issuer.fetches} == {
        JWKS_URL,
        f"{FEED_URL}/snapshot",
    }
