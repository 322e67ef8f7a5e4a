"""The feed as a verifier follows it: order, pages, epochs, long polls, pruning."""

from __future__ import annotations

import asyncio
import uuid

import httpx
import pytest
from sqlalchemy import func, select, text

from issuer.app import build_public_app
from issuer.feed.feed import Revocation
from issuer.feed.watch import FeedWatch
from issuer.storage.tables.feed import FeedEntryRow
from shared.feed import EntryKind, FeedPage, parse_page
from tests.support.issuer_harness import (
    FEED_TOKEN,
    IssuerHarness,
    make_settings,
    running_issuer,
)
from tests.support.processes import eventually

#: Seconds for which requests ask to be held, and those within which one that is let go
#: must be answered: long for a busy machine, and before the wait is over.
HELD, EARLY = 60, 45
AUTHORIZED = {"Authorization": f"Bearer {FEED_TOKEN}"}


async def revoke(harness: IssuerHarness, *keys: str, prune_at: int = 0) -> int:
    prune_at = prune_at or harness.clock.now + 600
    async with harness.database.write() as db:
        position = await harness.issuer.feed.feed.append(
            db, *(Revocation(EntryKind.SID, key, prune_at) for key in keys)
        )
    return position.seq


async def ask(harness: IssuerHarness, **query: object) -> httpx.Response:
    return await harness.client.get("/revocations", params=query, headers=AUTHORIZED)


async def follow(harness: IssuerHarness, **query: object) -> FeedPage:
    query.setdefault("epoch", (await harness.issuer.feed.feed.head()).epoch)
    answer = await ask(harness, **query)
    assert answer.status_code == 200, answer.text
    return parse_page(answer.content)


async def take_snapshot(harness: IssuerHarness) -> FeedPage:
    answer = await harness.client.get("/revocations/snapshot", headers=AUTHORIZED)
    assert answer.status_code == 200
    return parse_page(answer.content)


def keys_of(page: FeedPage) -> list[str]:
    return [entry.key for entry in page.entries]


async def test_entries_come_in_order_under_gapless_positions(
    issuer: IssuerHarness,
) -> None:
    assert await revoke(issuer, "a", "b") == 2
    assert await revoke(issuer, "c") == 3
    page = await follow(issuer, after=0)
    assert [(entry.seq, entry.key) for entry in page.entries] == [
        (1, "a"),
        (2, "b"),
        (3, "c"),
    ]
    assert (page.after, page.to, page.head) == (0, 3, 3)
    assert page.iss == issuer.settings.url
    assert page.as_of == issuer.clock()
    assert page.max_ttl == issuer.settings.access_ttl


async def test_a_generation_entry_carries_its_minimum(issuer: IssuerHarness) -> None:
    async with issuer.database.write() as db:
        revocation = Revocation(EntryKind.USER, "u1", 1_900_000_000, 4)
        await issuer.issuer.feed.feed.append(db, revocation)
    page = await follow(issuer, after=0)
    assert page.entries == [(1, EntryKind.USER, "u1", 4, 1_900_000_000)]


async def test_a_limited_page_shows_that_there_is_more(issuer: IssuerHarness) -> None:
    await revoke(issuer, "a", "b", "c")
    first = await follow(issuer, after=0, limit=2)
    assert (keys_of(first), first.to, first.head) == (["a", "b"], 2, 3)
    second = await follow(issuer, after=first.to, limit=2)
    assert (keys_of(second), second.to) == (["c"], 3)


async def test_a_page_that_ends_exactly_at_the_limit_is_followed_by_an_empty_one(
    issuer: IssuerHarness,
) -> None:
    await revoke(issuer, "a", "b")
    assert (await follow(issuer, after=0, limit=2)).to == 2
    assert keys_of(await follow(issuer, after=2, limit=2)) == []


async def test_a_rolled_back_revocation_leaves_no_gap(issuer: IssuerHarness) -> None:
    async with issuer.database.write() as db:
        revocation = Revocation(EntryKind.SID, "lost", issuer.clock.now)
        await issuer.issuer.feed.feed.append(db, revocation)
        await db.rollback()
    assert await revoke(issuer, "kept") == 1
    assert keys_of(await follow(issuer, after=0)) == ["kept"]


async def test_another_epoch_is_a_conflict(issuer: IssuerHarness) -> None:
    answer = await ask(issuer, epoch=str(uuid.uuid4()), after=0)
    assert answer.status_code == 409
    assert answer.headers["Content-Type"] == "application/problem+json"


async def test_a_position_never_given_out_is_a_conflict(issuer: IssuerHarness) -> None:
    await revoke(issuer, "a")
    epoch = (await issuer.issuer.feed.feed.head()).epoch
    assert (await ask(issuer, epoch=epoch, after=2)).status_code == 409


async def test_the_snapshot_holds_all_live_entries(issuer: IssuerHarness) -> None:
    await revoke(issuer, "a", "b", "c")
    page = await take_snapshot(issuer)
    assert (keys_of(page), page.after, page.to, page.head) == (["a", "b", "c"], 0, 3, 3)
    assert page.epoch == (await issuer.issuer.feed.feed.head()).epoch


async def test_an_empty_snapshot_is_a_page(issuer: IssuerHarness) -> None:
    page = await take_snapshot(issuer)
    assert (list(page.entries), page.to, page.head) == ([], 0, 0)


async def test_a_snapshot_of_several_batches_is_one_page(issuer: IssuerHarness) -> None:
    await revoke(issuer, *(f"s{number}" for number in range(11_000)))
    page = await take_snapshot(issuer)
    assert keys_of(page) == [f"s{number}" for number in range(11_000)]


async def test_an_entry_committed_while_a_snapshot_streams_is_left_to_the_next_page(
    issuer: IssuerHarness,
) -> None:
    await revoke(issuer, "before")
    pieces = await issuer.issuer.feed.feed.snapshot()
    await revoke(issuer, "meanwhile")
    page = parse_page(b"".join([piece async for piece in pieces]))
    assert (keys_of(page), page.to) == (["before"], 1)
    assert keys_of(await follow(issuer, after=page.to)) == ["meanwhile"]


async def test_only_entries_no_token_can_meet_are_pruned(issuer: IssuerHarness) -> None:
    now = issuer.clock.now
    await revoke(issuer, "expired", prune_at=now + 10)
    await revoke(issuer, "living", prune_at=now + 1_000)
    # Clocks may differ by 120 s at either end.
    issuer.clock.advance(10 + 2 * 120)
    assert await issuer.issuer.feed.feed.prune() == 0
    issuer.clock.advance(1)
    assert await issuer.issuer.feed.feed.prune() == 1
    assert keys_of(await take_snapshot(issuer)) == ["living"]


async def test_a_follower_behind_pruned_entries_moves_on(issuer: IssuerHarness) -> None:
    await revoke(issuer, "expired", prune_at=1)
    await issuer.issuer.feed.feed.prune()
    page = await follow(issuer, after=0, wait=30)
    assert (list(page.entries), page.to, page.head) == ([], 1, 1)


async def test_a_held_request_is_answered_as_soon_as_something_is_revoked(
    issuer: IssuerHarness,
) -> None:
    held = asyncio.create_task(follow(issuer, after=0, wait=HELD))
    await eventually(lambda: waiting(issuer, 1))
    await revoke(issuer, "a")
    async with asyncio.timeout(EARLY):
        assert keys_of(await held) == ["a"]
    assert await waiting(issuer, 0)


async def test_a_request_without_news_is_answered_empty_when_its_wait_is_over(
    issuer: IssuerHarness,
) -> None:
    page = await follow(issuer, after=0, wait=1)
    assert (list(page.entries), page.to, page.head) == ([], 0, 0)


async def test_a_commit_of_this_process_is_seen_at_once(issuer: IssuerHarness) -> None:
    feed = issuer.issuer.feed
    with feed.watch.waiting((await feed.feed.head()).epoch, 0) as news:
        await revoke(issuer, "a")
        assert news.is_set()


async def test_operators_see_the_head_that_another_process_has_moved(
    database_url: str,
) -> None:
    settings = make_settings(database_url)
    async with running_issuer(settings) as one, running_issuer(settings) as other:
        await revoke(other, "a", "b")
        assert (await one.issuer.feed.feed.head()).seq == 2
        page = one.issuer.base.metrics.render().decode()
    assert "gatehouse_issuer_feed_head 2.0" in page


async def test_a_commit_of_another_process_is_seen_within_the_poll(
    database_url: str,
) -> None:
    settings = make_settings(database_url)
    async with running_issuer(settings) as one, running_issuer(settings) as other:
        held = asyncio.create_task(follow(one, after=0, wait=HELD))
        await eventually(lambda: waiting(one, 1))
        await revoke(other, "a")
        async with asyncio.timeout(EARLY):
            assert keys_of(await held) == ["a"]


async def test_a_restored_database_ends_held_requests(issuer: IssuerHarness) -> None:
    await revoke(issuer, "a")
    epoch = (await issuer.issuer.feed.feed.head()).epoch
    held = asyncio.create_task(ask(issuer, epoch=epoch, after=1, wait=HELD))
    await eventually(lambda: waiting(issuer, 1))
    async with issuer.database.write() as db:
        statement = text("UPDATE feed_head SET epoch = :epoch, seq = 0")
        await db.execute(statement, {"epoch": str(uuid.uuid4())})
    async with asyncio.timeout(EARLY):
        assert (await held).status_code == 409


async def test_a_stop_answers_held_requests(issuer: IssuerHarness) -> None:
    held = asyncio.create_task(follow(issuer, after=0, wait=HELD))
    await eventually(lambda: waiting(issuer, 1))
    issuer.issuer.feed.watch.close()
    async with asyncio.timeout(EARLY):
        assert list((await held).entries) == []


async def test_a_client_that_left_is_no_longer_waited_for(
    issuer: IssuerHarness,
) -> None:
    app = build_public_app(issuer.issuer)
    epoch = (await issuer.issuer.feed.feed.head()).epoch
    has_left = asyncio.Event()
    messages = iter([{"type": "http.request", "body": b"", "more_body": False}])

    async def receive() -> dict[str, object]:
        for message in messages:
            return message
        await has_left.wait()
        return {"type": "http.disconnect"}

    async def send(_message: object) -> None:
        pass

    scope = {
        "type": "http",
        "asgi": {"version": "3.0"},
        "http_version": "1.1",
        "method": "GET",
        "scheme": "http",
        "path": "/revocations",
        "raw_path": b"/revocations",
        "root_path": "",
        "query_string": f"epoch={epoch}&after=0&wait={HELD}".encode(),
        "headers": [(b"authorization", f"Bearer {FEED_TOKEN}".encode())],
        "client": ("192.0.2.7", 1),
        "server": ("issuer.test", 443),
    }
    answering = asyncio.create_task(app(scope, receive, send))
    await eventually(lambda: waiting(issuer, 1))
    has_left.set()
    async with asyncio.timeout(EARLY):
        await answering
    assert await waiting(issuer, 0)


@pytest.mark.postgres
async def test_a_writer_that_commits_late_is_not_skipped(postgres_url: str) -> None:
    """A number handed out but not yet committed holds back all later ones.

    With a plain sequence the second writer would commit position 2 first, a follower
    would go on to 2, and position 1 would never be asked for.
    """
    async with running_issuer(make_settings(postgres_url)) as issuer:
        feed = issuer.issuer.feed.feed
        prune_at = issuer.clock.now + 600
        async with issuer.database.write() as late:
            await feed.append(late, Revocation(EntryKind.SID, "late", prune_at))
            quick = asyncio.create_task(revoke(issuer, "quick"))

            async def quick_waits_for_the_lock() -> bool:
                async with issuer.database.read() as db:
                    waiting = await db.scalar(
                        text(
                            "SELECT count(*) FROM pg_stat_activity "
                            "WHERE wait_event_type = 'Lock' "
                            "AND datname = current_database()"
                        )
                    )
                return waiting == 1

            await eventually(quick_waits_for_the_lock)
            seen = await follow(issuer, after=0)
            assert (list(seen.entries), seen.to) == ([], 0)
        assert await quick == 2
        assert keys_of(await follow(issuer, after=seen.to)) == ["late", "quick"]


async def test_many_writers_at_once_leave_no_gap(issuer: IssuerHarness) -> None:
    await asyncio.gather(*(revoke(issuer, f"s{number}") for number in range(20)))
    page = await follow(issuer, after=0)
    assert [entry.seq for entry in page.entries] == list(range(1, 21))
    async with issuer.database.read() as db:
        assert await db.scalar(select(func.count(FeedEntryRow.seq))) == 20


async def waiting(harness: IssuerHarness, count: int) -> bool:
    lines = harness.issuer.base.metrics.render().decode().splitlines()
    return f"gatehouse_issuer_feed_waiting {count:.1f}" in lines


# --- readers, and the form of requests ------------------------------------------------


@pytest.mark.parametrize("path", ["/revocations", "/revocations/snapshot"])
async def test_feed_without_its_credential_is_refused(
    issuer: IssuerHarness, path: str
) -> None:
    """R23: RFC 6750, section 3.1: no error code where no credential was shown."""
    answer = await issuer.client.get(path)
    assert answer.status_code == 401
    assert answer.headers["WWW-Authenticate"] == 'Bearer realm="gatehouse"'


@pytest.mark.parametrize(
    "headers",
    [
        [("Authorization", f"Bearer {FEED_TOKEN}x")],
        [("Authorization", f"Bearer {FEED_TOKEN[:-1]}")],
        [("Authorization", f"Basic {FEED_TOKEN}")],
        [("Authorization", f"Bearer  {FEED_TOKEN}")],
        [("Authorization", FEED_TOKEN)],
        [("Authorization", "")],
        [("Authorization", f"Bearer {FEED_TOKEN}")] * 2,
        [("Authorization", f"Bearer {FEED_TOKEN},Bearer {FEED_TOKEN}")],
    ],
)
async def test_a_wrong_or_repeated_credential_is_refused(
    issuer: IssuerHarness, headers: list[tuple[str, str]]
) -> None:
    """R4, R23."""
    answer = await issuer.client.get("/revocations/snapshot", headers=headers)
    assert answer.status_code == 401
    assert 'error="invalid_token"' in answer.headers["WWW-Authenticate"]


@pytest.mark.parametrize(
    ("query", "field"),
    [
        ("after=0", "epoch"),
        ("epoch=&after=0", "epoch"),
        ("epoch=nonsense&after=0", "epoch"),
        ("epoch={EPOCH}&after=0", "epoch"),
        ("epoch={epoch}", "after"),
        ("epoch={epoch}&after=-1", "after"),
        ("epoch={epoch}&after=%2B1", "after"),
        ("epoch={epoch}&after=1e3", "after"),
        ("epoch={epoch}&after=%D9%A1", "after"),
        ("epoch={epoch}&after=9999999999999999999", "after"),
        ("epoch={epoch}&after=0&wait=soon", "wait"),
        ("epoch={epoch}&after=0&limit=0", "limit"),
        ("epoch={epoch}&after=0&limit=", "limit"),
        ("epoch={epoch}&after=0&after=0", "query"),
        ("epoch={epoch}&after=0&password=hunter2hunter2", "query"),
        ("epoch={epoch}&after=0&wait=%zz", "query"),
        ("epoch={epoch}&after=0&wait=%ff", "query"),
        ("epoch={epoch}&after=0&wait=%00", "query"),
    ],
)
async def test_a_malformed_query_is_refused_naming_the_field(
    issuer: IssuerHarness, query: str, field: str
) -> None:
    """R5, R35: named, never repeated."""
    epoch = (await issuer.issuer.feed.feed.head()).epoch
    query = query.format(epoch=epoch, EPOCH=epoch.upper())
    answer = await issuer.client.get(f"/revocations?{query}", headers=AUTHORIZED)
    assert answer.status_code == 400
    assert answer.headers["Content-Type"] == "application/problem+json"
    assert [problem["field"] for problem in answer.json()["problems"]] == [field]
    assert "hunter2" not in answer.text


async def test_waits_and_limits_beyond_the_maximum_are_capped(
    issuer: IssuerHarness,
) -> None:
    await revoke(issuer, "a")
    page = await follow(issuer, after=0, wait=10**9, limit=10**9)
    assert keys_of(page) == ["a"]


async def test_a_follower_names_itself_with_a_uuid(issuer: IssuerHarness) -> None:
    epoch = (await issuer.issuer.feed.feed.head()).epoch

    async def ask_as(*headers: tuple[str, str]) -> int:
        answer = await issuer.client.get(
            "/revocations",
            params={"epoch": epoch, "after": 0},
            headers=[*AUTHORIZED.items(), *headers],
        )
        return answer.status_code

    follower = ("Gatehouse-Follower", str(uuid.uuid4()))
    assert await ask_as(follower, ("Gatehouse-Follower-Staleness", "30")) == 200
    assert await ask_as(("Gatehouse-Follower", "me")) == 400
    assert await ask_as(follower, follower) == 400
    assert await ask_as(follower, ("Gatehouse-Follower-Staleness", "soon")) == 400


async def test_feed_answers_are_never_stored(issuer: IssuerHarness) -> None:
    epoch = (await issuer.issuer.feed.feed.head()).epoch
    answer = await ask(issuer, epoch=epoch, after=0)
    assert answer.headers["Cache-Control"] == "no-store"


def test_the_watch_wakes_only_waiters_for_the_position() -> None:
    counts: list[int] = []
    watch = FeedWatch(read_head=lambda: asyncio.Future(), on_waiting=counts.append)
    with watch.waiting("e", 4) as behind, watch.waiting("e", 5) as ahead:
        watch.wake(5)
        assert behind.is_set()
        assert not ahead.is_set()
    assert counts == [1, 2, 1, 0]
