"""A verifier as the issuer sees it: it requests the feed, and acknowledges what it has
applied.
"""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import httpx
from sqlalchemy import select

from issuer.feed import followers
from issuer.storage.tables.feed import FollowerRow
from shared.feed import FeedPage, parse_page
from tests.support.issuer_harness import FEED_TOKEN, IssuerHarness
from tests.support.issuer_story import Tokens
from tests.support.processes import eventually


class FakeVerifier:
    """Takes the snapshot, then requests the entries after its position.

    Attributes:
        id: names this process of a verifier.
        epoch: of its position; empty before the first answer.
        position: everything up to it is applied.
    """

    def __init__(
        self,
        issuer: IssuerHarness,
        *,
        staleness: int = 30,
        allows_stale: bool = False,
        replaces: tuple[str, ...] = (),
    ) -> None:
        self.issuer = issuer
        self.id = str(uuid.uuid4())
        self.epoch = ""
        self.position = 0
        self.headers = {
            "Authorization": f"Bearer {FEED_TOKEN}",
            "Gatehouse-Follower": self.id,
            "Gatehouse-Follower-Staleness": str(staleness),
        }
        if allows_stale:
            self.headers["Gatehouse-Follower-On-Stale"] = "allow"
        if replaces:
            self.headers["Gatehouse-Follower-Replaces"] = ", ".join(replaces)

    async def take_snapshot(self) -> FeedPage:
        """Take all there is and apply it; nothing is acknowledged yet."""
        answer = await self.issuer.client.get(
            "/revocations/snapshot", headers=self.headers
        )
        return self._apply(answer)

    async def ask(self, wait: int = 0) -> httpx.Response:
        """Say how far we are and return the answer, unread."""
        query = {"epoch": self.epoch, "after": self.position, "wait": wait}
        return await self.issuer.client.get(
            "/revocations", params=query, headers=self.headers
        )

    async def follow(self, wait: int = 0) -> FeedPage:
        """Acknowledge our position, and apply the answer."""
        return self._apply(await self.ask(wait))

    async def catch_up(self) -> None:
        """Apply all there is and say so."""
        await self.take_snapshot()
        await self.follow()
        await wait_until_said(self)

    async def say_goodbye(self, **headers: str) -> httpx.Response:
        """End the lease, and return the answer; `headers` instead of its own."""
        names = ("Authorization", "Gatehouse-Follower", "Gatehouse-Follower-Replaces")
        given = {name: self.headers[name] for name in names if name in self.headers}
        return await self.issuer.client.post(
            "/revocations/goodbye", headers=given | headers
        )

    @asynccontextmanager
    async def following(self) -> AsyncIterator[None]:
        """Within, follow without a pause."""

        is_over = False

        async def follow() -> None:
            while not is_over:
                await self.follow(wait=1)

        task = asyncio.create_task(follow())
        try:
            yield
        finally:
            # Not cut off: a connection would leak.
            is_over = True
            await task

    def _apply(self, answer: httpx.Response) -> FeedPage:
        assert answer.status_code == 200, answer.text
        page = parse_page(answer.content)
        self.epoch, self.position = page.epoch, page.to
        return page


async def wait_until_said(verifier: FakeVerifier) -> None:
    """Return once the issuer's table has the verifier's position."""

    async def is_said() -> bool:
        row = await find_follower(verifier)
        # A position of an older epoch means nothing in this one.
        return (
            row is not None
            and row.epoch == verifier.epoch
            and row.position >= verifier.position
        )

    await eventually(is_said)


async def find_follower(verifier: FakeVerifier) -> FollowerRow | None:
    """Return the verifier's row."""
    async with verifier.issuer.database.read() as db:
        query = select(FollowerRow).where(FollowerRow.id == verifier.id)
        return await db.scalar(query)


async def read_followers(issuer: IssuerHarness) -> followers.FollowersReading:
    """Return head and followers, whether or not the database is the one we left."""
    async with issuer.database.read() as db:
        return await followers.read_followers(db, issuer.issuer.feed.continuity)


async def log_out(
    issuer: IssuerHarness, tokens: Tokens, wait: int | None = 0
) -> httpx.Response:
    """End the session by its refresh token, which may be done again and again."""
    preference = {} if wait is None else {"Prefer": f"wait={wait}"}
    answer = await issuer.client.post(
        "/auth/logout", json={"refresh_token": tokens.refresh_token}, headers=preference
    )
    assert answer.status_code == 200, answer.text
    return answer


async def confirm(issuer: IssuerHarness, tokens: Tokens, wait: int = 0) -> dict:
    """Log out and return the answer's `followers`, with `is_confirmed` in it."""
    body = (await log_out(issuer, tokens, wait)).json()
    assert body["revoked"] is True
    return {**body["followers"], "is_confirmed": body["confirmed"]}


async def look(issuer: IssuerHarness) -> None:
    """Have the watch over leases look once."""
    await issuer.issuer.feed.lease_watch.look()
