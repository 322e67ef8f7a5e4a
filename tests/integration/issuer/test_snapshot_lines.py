"""The snapshot in lines, for clients that accept them (decision 0004)."""

from __future__ import annotations

import asyncio
from typing import Any

import httpx
import pytest

from issuer.feed.feed import Revocation
from shared.feed import EntryKind, FeedPage, parse_page
from tests.support.issuer_harness import FEED_TOKEN, IssuerHarness

LINES = "application/x-ndjson"


async def take_lines(
    harness: IssuerHarness, accept: str = f"{LINES}, application/json;q=0.5"
) -> list[FeedPage]:
    answer = await harness.client.get(
        "/revocations/snapshot",
        headers={"Authorization": f"Bearer {FEED_TOKEN}", "Accept": accept},
    )
    assert answer.status_code == 200
    assert answer.headers["Content-Type"] == LINES
    *lines, end = answer.content.split(b"\n")
    assert end == b""
    return [parse_page(line) for line in lines]


async def revoke(harness: IssuerHarness, count: int, *, prune_at: int) -> None:
    sids = (Revocation(EntryKind.SID, f"s{n}", prune_at) for n in range(count))
    async with harness.database.write() as db:
        await harness.issuer.feed.feed.append(db, *sids)


@pytest.mark.parametrize(
    ("count", "sizes"),
    [(0, [0]), (1, [1]), (10_000, [10_000]), (10_001, [10_000, 1])],
)
async def test_each_line_is_a_page_that_goes_on_where_the_last_one_ended(
    issuer: IssuerHarness, count: int, sizes: list[int]
) -> None:
    if count:
        await revoke(issuer, count, prune_at=issuer.clock.now + 600)
    pages = await take_lines(issuer)
    assert [len(page.entries) for page in pages] == sizes
    assert [page.after for page in pages] == [0, *(page.to for page in pages[:-1])]
    assert [page.to == page.head for page in pages] == [False] * (len(sizes) - 1) + [
        True
    ]
    assert {page.head for page in pages} == {count}


async def test_the_last_line_reaches_the_head_also_past_pruned_entries(
    issuer: IssuerHarness,
) -> None:
    await revoke(issuer, 3, prune_at=issuer.clock.now + 10)
    issuer.clock.advance(1_000)
    await issuer.issuer.feed.feed.prune()
    (page,) = await take_lines(issuer)
    assert (list(page.entries), page.to, page.head) == ([], 3, 3)


async def test_a_client_that_does_not_accept_lines_gets_one_page(
    issuer: IssuerHarness,
) -> None:
    for accept in ("application/json", "*/*", "application/*", "text/x-ndjson"):
        answer = await issuer.client.get(
            "/revocations/snapshot",
            headers={"Authorization": f"Bearer {FEED_TOKEN}", "Accept": accept},
        )
        assert answer.headers["Content-Type"] == "application/json"
        assert parse_page(answer.content).head == 0


@pytest.mark.parametrize("accept", [LINES, "application/json"])
async def test_no_piece_that_waits_for_a_slow_reader_is_long(
    issuer: IssuerHarness, accept: str
) -> None:
    """R44: five verifiers with a whole batch waiting would have one another cut off."""
    transport = issuer.client._transport
    assert isinstance(transport, httpx.ASGITransport)
    sizes: list[int] = []

    async def receive() -> dict[str, Any]:
        await asyncio.Event().wait()
        raise AssertionError

    async def send(message: Any) -> None:
        sizes.append(len(message.get("body", b"")))

    await revoke(issuer, 2_000, prune_at=issuer.clock.now + 600)
    headers = {"authorization": f"Bearer {FEED_TOKEN}", "accept": accept}
    scope = {
        "type": "http",
        "method": "GET",
        "path": "/revocations/snapshot",
        "headers": [(k.encode(), v.encode()) for k, v in headers.items()],
        "query_string": b"",
    }
    await transport.app(scope, receive, send)
    assert sum(sizes) > 40_000
    assert max(sizes) <= 16_384
