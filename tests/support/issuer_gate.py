"""The product's own gate, fed by an issuer that runs in the same process."""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import Awaitable, Mapping
from typing import TypeVar

from sqlalchemy import text

from shared.feed import FOLLOWER_HEADER, LINES_TYPE
from tests.support.gate_dependencies import gate_dependencies
from tests.support.issuer_harness import FEED_TOKEN, IssuerHarness
from tests.support.processes import eventually
from verifier.check.cache import FactCache
from verifier.check.forward_auth import PlainCheckRequest
from verifier.check.gate import Gate
from verifier.check.policy import PolicyBook, TokenPolicy
from verifier.check.trust import Trust
from verifier.policies.document import parse_policies
from verifier.sync.feed import FEED_HOLD, FeedFollower, FeedSource
from verifier.sync.fetch import Fetched, TakeLine
from verifier.sync.keys import KeysRefresher, own_keys

_MAX_STALENESS = 30
#: Longer than any test lets a gate go without keys.
_KEYS_MAX_AGE = 604_800
_Told = TypeVar("_Told")


class IssuerGate:
    """A gate that asks this issuer for keys and feed, one step at a time.

    Args:
        issuer: the issuer of its tokens; they share a clock.
        clock_error: seconds by which its wall clock is ahead, or behind if negative.
        is_counted: whether the issuer waits for it; one that only looks once is not.
    """

    def __init__(
        self, issuer: IssuerHarness, *, clock_error: int = 0, is_counted: bool = True
    ) -> None:
        self._issuer = issuer
        self._is_counted = is_counted
        settings = issuer.settings
        self.trust = Trust(settings.url)
        follower_id = str(uuid.uuid4())
        source = FeedSource(
            f"{settings.url}/revocations",
            FEED_TOKEN,
            settings.url,
            follower_id,
            _MAX_STALENESS,
        )
        self.feed = FeedFollower(source, self._fetch, self.trust)
        jwks_url = f"{settings.url}/.well-known/jwks.json"
        self.keys = KeysRefresher(
            own_keys(settings.url, "own", jwks_url, follower_id),
            self._fetch,
            self.trust,
            keys_max_age=_KEYS_MAX_AGE,
        )
        token = TokenPolicy.own(settings.url, settings.audience)
        self.gate = Gate(
            PolicyBook(parse_policies("", token)),
            gate_dependencies(
                self.trust,
                lambda: issuer.clock.now + clock_error,
                issuer.clock.elapsed,
            ),
            lambda: FactCache(max_entries=10_000, max_bytes=1 << 30),
        )

    def check(self, token: str) -> int:
        """Return the status that a gateway is answered for this token."""
        request = PlainCheckRequest(
            b"GET",
            b"/verify/nginx",
            [(b"authorization", b"Bearer " + token.encode())],
            True,
        )
        return self.gate.answer(request).status

    async def sync(self) -> None:
        """Fetch keys and feed until there is no news."""
        await self.keys.step()
        await self.feed.step()
        while self.feed.position < await self._read_head():
            await self.feed.step()

    async def follow_during(self, asked: Awaitable[_Told]) -> _Told:
        """Follow the feed until the issuer has answered `asked`, and return the
        answer.
        """
        task = asyncio.ensure_future(asked)

        async def is_answered() -> bool:
            await self.feed.step()
            return task.done()

        await eventually(is_answered, what="the issuer has answered")
        return task.result()

    async def _read_head(self) -> int:
        # Also entries that another process has just written.
        async with self._issuer.database.read() as db:
            return int(await db.scalar(text("SELECT seq FROM feed_head")))

    async def _fetch(
        self,
        url: str,
        headers: Mapping[str, str],
        hold: float,
        max_bytes: int,
        take_line: TakeLine | None = None,
    ) -> Fetched:
        sent_at = self._issuer.clock.elapsed()
        # No wait here: the next step asks again at once.
        url = url.replace(f"wait={FEED_HOLD}", "wait=0")
        sent = {
            name: text
            for name, text in headers.items()
            if self._is_counted or not name.startswith(FOLLOWER_HEADER)
        }
        answer = await self._issuer.client.get(url, headers=sent)
        body = answer.content if answer.status_code == 200 else b""
        if take_line and answer.headers["Content-Type"].startswith(LINES_TYPE):
            for line in body.splitlines():
                await take_line(line, sent_at)
            body = b""
        return Fetched(answer.status_code, answer.headers, body, sent_at)
