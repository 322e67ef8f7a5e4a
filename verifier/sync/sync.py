"""Keeps the trust snapshot true, on its own clock: a request never fetches (R19).

Two sources, each followed by a task of its own: the JWKS and the revocation feed. Each
has a back-off with jitter and a circuit breaker. What was good stays in force until it is
too old; a failed fetch takes nothing away (R20).
"""

from __future__ import annotations

import asyncio
import logging
import re
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import replace
from typing import Final, NamedTuple
from urllib.parse import urlencode

from shared.feed import (
    FOLLOWER_HEADER,
    FOLLOWER_ON_STALE_ALLOW,
    FOLLOWER_ON_STALE_HEADER,
    FOLLOWER_REPLACES_HEADER,
    FOLLOWER_STALENESS_HEADER,
    LINES_TYPE,
    MAX_PAGE_ENTRIES,
    FeedEntry,
    FeedError,
    FeedPage,
    parse_page,
)
from shared.log import event
from verifier.check.trust import TrustSnapshot, parse_jwks
from verifier.disk.disk_copy import Keeper, NoKeeper
from verifier.sync.clock import whole_seconds_up
from verifier.sync.fetch import Fetch, Fetched, TakeLine, unexpected
from verifier.sync.staleness import SourceStatus

_LOG: Final = logging.getLogger(__name__)

#: Seconds the feed is asked to hold when it has no news. An age reaches twice that, and
#: `FRESH_FOR` is more.
FEED_HOLD: Final = 5
#: Seconds between two asks for the feed when the first brought no news.
FEED_REST: Final = 0.05
#: Seconds between two asks for the JWKS caused by an unknown kid.
KEYS_COOL_DOWN: Final = 10.0
#: Bounds of the JWKS period, whatever max-age says, seconds.
KEYS_PERIOD: Final = (5.0, 300.0)
MAX_JWKS_BYTES: Final = 262_144
MAX_PAGE_BYTES: Final = 4 * 1_048_576
MAX_SNAPSHOT_BYTES: Final = 512 * 1_048_576
_APPLY_AT_ONCE: Final = 5_000

Sleep = Callable[[float], Awaitable[None]]


class TrustHolder:
    """Holds the present snapshot; each change swaps in a whole new one."""

    def __init__(self) -> None:
        self.snapshot = TrustSnapshot()


class FeedSource(NamedTuple):
    """Where the feed is and who we are to it.

    Attributes:
        url: the feed's URL.
        token: the feed credential.
        issuer: the `iss` every page must carry.
        follower_id: our UUID, kept for this process's life.
        max_staleness: our hard bound, seconds.
        allows_stale: some policy of ours answers from stale revocations.
    """

    url: str
    token: str
    issuer: str
    follower_id: str
    max_staleness: float
    allows_stale: bool = False


def _see_nothing(_entries: Sequence[FeedEntry]) -> None:
    """Look at no entry."""


class FeedFollower:
    """Follows the revocation feed (docs/design.md, "The revocation feed").

    Args:
        source: the feed, and who we are.
        fetch: the network.
        trust: what is kept true.
        keeper: keeps what came before it is acknowledged; None: nobody does.
        see: told the entries of each page as they come into force; not those of a
            snapshot, which are old.

    Attributes:
        replaces: ids of ended processes whose place we take; told to the issuer until
            it has answered us.
    """

    def __init__(
        self,
        source: FeedSource,
        fetch: Fetch,
        trust: TrustHolder,
        *,
        keeper: Keeper | None = None,
        see: Callable[[Sequence[FeedEntry]], None] = _see_nothing,
    ) -> None:
        self._source = source
        self._fetch = fetch
        self._trust = trust
        self.status = SourceStatus()
        self.epoch: str | None = None
        self.position = 0
        self.head = 0
        self._brought_news = False
        self._is_answered = False
        self._keeper = keeper or NoKeeper()
        self._see = see
        self.replaces: tuple[str, ...] = ()

    @property
    def source(self) -> FeedSource:
        """Where the feed is, and who we are to it."""
        return self._source

    def introduce(self, token: str, *, allows_stale: bool) -> None:
        """Show this credential, and say this of our policies, from the next ask on."""
        self._source = self._source._replace(token=token, allows_stale=allows_stale)

    def resume(self, epoch: str, position: int) -> None:
        """Go on from a position whose entries are in force already."""
        self.epoch, self.position, self.head = epoch, position, position

    async def rest(self, sleep: Sleep) -> None:
        """Rest briefly when there was no news.

        The issuer holds us while there is none; one that does not, or a proxy that
        answers for it, must not be asked without a pause.
        """
        if not self._brought_news:
            await sleep(FEED_REST)

    async def step(self) -> None:
        """Ask once and apply what comes.

        Raises:
            FetchError, FeedError: when nothing could be applied.
        """
        if self.epoch is None:
            await self._take_snapshot()
            return
        # The first answer, and that after a failure, is not held: without it the gate
        # may be closed, or close soon, and the issuer would hold it while there is no
        # news. A success that the disk copy remembers is not ours.
        is_steady = self._is_answered and not self.status.failures
        hold = FEED_HOLD if is_steady else 0
        query = urlencode(
            {
                "epoch": self.epoch,
                "after": self.position,
                "wait": hold,
                "limit": MAX_PAGE_ENTRIES,
            }
        )
        url = f"{self._source.url}?{query}"
        answer = await self._ask(url, hold, MAX_PAGE_BYTES)
        if answer.status == 409:
            # Another epoch, or a count that went back: a restored database. What we have
            # stays, the snapshot is added to it.
            was = self.epoch
            await self._take_snapshot()
            event(
                _LOG, logging.WARNING, "feed.epoch_changed", was=was, epoch=self.epoch
            )
            self._brought_news = False
            return
        page = self._parse(self._body_of(answer))
        if page.epoch != self.epoch or page.after != self.position:
            raise FeedError("the page does not follow our position")
        if page.to == page.after < page.head:
            # We ask again at once while there is more: that must not turn in a circle.
            raise FeedError("the page brings us no further")
        await self._enforce(page.entries)
        self._reach(page, answer.sent_at)
        self.replaces = ()
        self._see(page.entries)

    async def _take_snapshot(self) -> None:
        """Take all live entries, in lines, or as one page from who knows no lines.

        Each line is in force when the next one comes: entries only add up, so half a
        snapshot does no harm. A position is reached with the last one only.
        """
        parts: list[FeedPage] = []

        async def take_line(line: bytes, _sent_at: float) -> None:
            await take(self._parse(line))

        async def take(page: FeedPage) -> None:
            if page.after != (parts[-1].to if parts else 0) or any(
                (page.epoch, page.head) != (part.epoch, part.head)
                for part in parts[-1:]
            ):
                raise FeedError("a line of the snapshot does not follow the one before")
            await self._enforce(page.entries)
            parts.append(replace(page, entries=()))

        url = f"{self._source.url}/snapshot"
        answer = await self._ask(url, FEED_HOLD, MAX_SNAPSHOT_BYTES, take_line)
        if answer.status != 200 or answer.body:
            page = self._parse(self._body_of(answer))
            if page.to == page.head:
                await take(page)
        if not parts or parts[-1].to != parts[-1].head:
            raise FeedError("the snapshot is not whole")
        self._reach(parts[-1], answer.sent_at)
        event(_LOG, logging.INFO, "feed.snapshot_taken", pages=len(parts))

    async def _ask(
        self, url: str, hold: float, max_bytes: int, take_line: TakeLine | None = None
    ) -> Fetched:
        headers = {
            "Authorization": f"Bearer {self._source.token}",
            "Accept": (
                f"{LINES_TYPE}, application/json;q=0.5"
                if take_line
                else "application/json"
            ),
            FOLLOWER_HEADER: self._source.follower_id,
            FOLLOWER_STALENESS_HEADER: str(
                whole_seconds_up(self._source.max_staleness)
            ),
        }
        if self._source.allows_stale:
            headers[FOLLOWER_ON_STALE_HEADER] = FOLLOWER_ON_STALE_ALLOW
        if self.replaces:
            headers[FOLLOWER_REPLACES_HEADER] = ",".join(self.replaces)
        return await self._fetch(url, headers, hold, max_bytes, take_line)

    def _body_of(self, answer: Fetched) -> bytes:
        if answer.status != 200:
            raise unexpected(answer, self._source.url)
        return answer.body

    def _parse(self, body: bytes) -> FeedPage:
        page = parse_page(body)
        if page.iss != self._source.issuer:
            raise FeedError("iss: not our issuer")
        return page

    async def _enforce(self, entries: Sequence[FeedEntry]) -> None:
        """Keep the entries and union them in."""
        for start in range(0, len(entries), _APPLY_AT_ONCE):
            batch = entries[start : start + _APPLY_AT_ONCE]
            self._keeper.write_entries(batch)
            snapshot = self._trust.snapshot
            self._trust.snapshot = replace(
                snapshot, revocations=snapshot.revocations.apply(batch)
            )
            # Other requests get their turn, and what was decided before this leaves
            # (`Edge.send_soon`) before anything is acknowledged.
            await asyncio.sleep(0)

    def _reach(self, page: FeedPage, sent_at: float) -> None:
        """Say how far we are, when the entries are in force: never the other way round.

        The same holds for the disk: a position is acknowledged with the next request.
        """
        asked_at = sent_at if page.to == page.head else None
        self._keeper.reached(page.epoch, page.to, asked_at)
        self._brought_news = page.after < page.to
        self.epoch, self.position, self.head = page.epoch, page.to, page.head
        if page.to == page.head:
            fresh_until = sent_at + self._source.max_staleness
            self._trust.snapshot = replace(
                self._trust.snapshot,
                fresh_until=max(fresh_until, self._trust.snapshot.fresh_until),
                has_revocations=True,
            )
            self.status.succeeded(sent_at)
            self._is_answered = True


_MAX_AGE: Final = re.compile(r"(?:^|[\s,])max-age=([0-9]{1,9})(?:$|[\s,;])")


class KeysRefresher:
    """Refreshes the verification keys from the JWKS."""

    def __init__(
        self,
        url: str,
        fetch: Fetch,
        trust: TrustHolder,
        *,
        keys_max_age: float,
        follower_id: str = "",
        keeper: Keeper | None = None,
    ) -> None:
        self._url = url
        self._fetch = fetch
        self._trust = trust
        self._keys_max_age = keys_max_age
        self._follower_id = follower_id
        self._keeper = keeper or NoKeeper()
        self._etag = ""
        self._asked_at = float("-inf")
        self._wanted = asyncio.Event()
        self.status = SourceStatus()
        self.period = KEYS_PERIOD[0]

    def ask(self, monotonic: float) -> None:
        """Wish for a refresh, since a token names a key we lack.

        At most one per cool-down, claimed here, before the fetch, and kept when it fails:
        a failing issuer is not asked once per token (CVE-2026-48524).
        """
        if monotonic >= self._asked_at + KEYS_COOL_DOWN:
            self._asked_at = monotonic
            self._wanted.set()

    async def wait(self, seconds: float) -> None:
        """Wait until the period is over or a refresh is wished for."""
        try:
            await asyncio.wait_for(self._wanted.wait(), seconds)
        except TimeoutError:
            return
        finally:
            self._wanted.clear()

    async def step(self) -> None:
        """Ask once; swap the key set only when a usable one came.

        Raises:
            FetchError, JwksError: when none came; what there was stays.
        """
        headers = {"Accept": "application/jwk-set+json, application/json"}
        if self._follower_id:
            # By this and the ETag the issuer learns which keys we have.
            headers[FOLLOWER_HEADER] = self._follower_id
        if self._etag:
            headers["If-None-Match"] = self._etag
        answer = await self._fetch(self._url, headers, 0.0, MAX_JWKS_BYTES)
        if answer.status == 200:
            keys = parse_jwks(answer.body)
            if keys.version != self._trust.snapshot.keys.version:
                event(_LOG, logging.INFO, "keys.changed", kids=sorted(keys.keys))
            else:
                keys = self._trust.snapshot.keys
            known, self._etag = self._etag, answer.headers.get("etag", "")
            is_news = self._etag not in {"", known}
        elif answer.status == 304 and self._etag:
            keys, is_news = self._trust.snapshot.keys, False
        else:
            raise unexpected(answer, self._url)
        self._trust.snapshot = replace(
            self._trust.snapshot,
            keys=keys,
            keys_until=answer.sent_at + self._keys_max_age,
        )
        body = answer.body if answer.status == 200 else None
        self._keeper.keys_refreshed(body, answer.sent_at)
        # Asked again soon, the issuer learns that we have the new ones.
        self.period = KEYS_PERIOD[0] if is_news else _period(answer)
        self.status.succeeded(answer.sent_at)


def _period(answer: Fetched) -> float:
    match = _MAX_AGE.search(answer.headers.get("cache-control", ""))
    least, most = KEYS_PERIOD
    return min(max(float(match[1]), least), most) if match else most
