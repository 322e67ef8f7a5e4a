"""Follows the revocation feed in the background; a request never fetches (R19).

Revocations stay in force until every token that they concern has expired; a failed
fetch removes nothing.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import replace
from types import MappingProxyType
from typing import Final, NamedTuple, Protocol
from urllib.parse import urlencode

from shared.feed import (
    FOLLOWER_APPLIED_HEADER,
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
from verifier.check.trust import Trust
from verifier.disk.disk_copy import CopyWriter, NoCopy
from verifier.sync.clock import whole_seconds_up
from verifier.sync.fetch import Fetch, Fetched, TakeLine, unexpected
from verifier.sync.staleness import SourceStatus

_LOG: Final = logging.getLogger(__name__)

#: Seconds that the issuer should hold a feed request without news. An age reaches twice
#: that, and `FRESH_FOR` is more.
FEED_HOLD: Final = 5
#: Seconds between two feed requests when the first brought no news.
FEED_REST: Final = 0.05
#: Seconds between two feed requests while entries are not in force in every gateway. A
#: gateway that ended is waited for until its window is over, and the others must have
#: new entries meanwhile: each is late by this much at most.
APPLIED_WAIT: Final = 0.05
MAX_PAGE_BYTES: Final = 4 * 1_048_576
MAX_SNAPSHOT_BYTES: Final = 512 * 1_048_576
_APPLY_AT_ONCE: Final = 5_000

Sleep = Callable[[float], Awaitable[None]]


class FeedSource(NamedTuple):
    """The feed, and how we present ourselves to it.

    Attributes:
        url: the feed's URL.
        token: the feed credential.
        issuer: the `iss` of every page.
        follower_id: our UUID, the same for the life of this process.
        max_staleness: seconds after which checks are answered 503.
        allows_stale: at least one policy answers from stale revocations.
    """

    url: str
    token: str
    issuer: str
    follower_id: str
    max_staleness: float
    allows_stale: bool = False


class Applied(Protocol):
    """How far the entries are in force outside of this process, in gateways.

    Positions are of an epoch; in another one, nothing is in force yet.
    """

    def reached(self, epoch: str, position: int) -> None:
        """Note that `Trust` has all entries up to this position."""

    def position(self, epoch: str) -> int:
        """Return the position up to which all entries are in force everywhere."""

    async def wait(self, epoch: str, position: int, seconds: float) -> None:
        """Return when the entries up to the position are in force, or in `seconds`."""


def _ignore(_entries: Sequence[FeedEntry]) -> None:
    """Ignore the entries."""


class FeedFollower:
    """Follows the revocation feed (docs/design.md, "The revocation feed").

    Args:
        source: the feed, and how we present ourselves to it.
        fetch: sends requests.
        trust: gets the entries and their age.
        copy: stores entries before they are acknowledged; None stores nothing.
        on_entries: called with the entries of each page that came into force, but not
            with those of a snapshot, which are old.
        applied: how far they are in force in gateways, of a follower that writes into
            some; only that is acknowledged. None: they are in force in `trust`.

    Attributes:
        replaces: ids of ended processes that this one replaces; sent to the issuer
            until it has answered.
    """

    def __init__(
        self,
        source: FeedSource,
        fetch: Fetch,
        trust: Trust,
        *,
        copy: CopyWriter | None = None,
        on_entries: Callable[[Sequence[FeedEntry]], None] = _ignore,
        applied: Applied | None = None,
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
        self._copy = copy or NoCopy()
        self._on_entries = on_entries
        self._applied = applied
        self.replaces: tuple[str, ...] = ()

    @property
    def source(self) -> FeedSource:
        """The feed, and how we present ourselves to it."""
        return self._source

    def update_source(self, token: str, *, allows_stale: bool) -> None:
        """Use this credential, and declare this of our policies, from the next request
        on.
        """
        self._source = self._source._replace(token=token, allows_stale=allows_stale)

    def resume(self, epoch: str, position: int) -> None:
        """Continue from a position whose entries are in force already."""
        self.epoch, self.position, self.head = epoch, position, position
        if self._applied is not None:
            self._applied.reached(epoch, position)

    async def pause(self, sleep: Sleep) -> None:
        """Pause briefly after an answer without news, and for the gateways.

        The issuer holds a request while it has no news. An issuer that does not, or a
        proxy that answers for it, must not be asked in a tight loop.
        """
        if self._applied is not None and self.epoch is not None and self._is_ahead:
            await self._applied.wait(self.epoch, self.position, APPLIED_WAIT)
        elif not self._brought_news:
            await sleep(FEED_REST)

    @property
    def _applied_position(self) -> int:
        """The position up to which all entries are in force."""
        if self._applied is None or self.epoch is None:
            return self.position
        return min(self._applied.position(self.epoch), self.position)

    @property
    def _is_ahead(self) -> bool:
        """Whether entries that we have are not in force in every gateway."""
        return self._applied_position < self.position

    async def step(self) -> None:
        """Send one request and apply the answer.

        Raises:
            FetchError, FeedError: when the answer could not be applied.
        """
        if self.epoch is None:
            await self._take_snapshot()
            return
        applied = self._applied_position
        answer = await self._ask_for_page(self.epoch, applied)
        if answer.status == 409:
            # Another epoch, or a count that went back: a restored database. Our entries
            # stay, and the snapshot is added to them.
            was = self.epoch
            await self._take_snapshot()
            event(
                _LOG, logging.WARNING, "feed.epoch_changed", was=was, epoch=self.epoch
            )
            self._brought_news = False
            return
        page = self._parse(self._body_of(answer))
        if self._applied is not None:
            _check_was_heard(answer, applied)
        if page.epoch != self.epoch or page.after != self.position:
            raise FeedError("the page does not follow our position")
        if page.to == page.after < page.head:
            # We ask again at once while there is more, so each page must advance.
            raise FeedError("the page brings us no further")
        await self._enforce(page.entries)
        self._reach(page, answer.sent_at)
        self.replaces = ()
        self._on_entries(page.entries)

    async def _ask_for_page(self, epoch: str, applied: int) -> Fetched:
        """Request the entries after our position."""
        # The first request, and one after a failure, is not to be held: without an
        # answer the gate may be closed, or close soon. A success recorded in the disk
        # copy is not one of this process.
        is_steady = self._is_answered and not self.status.failures
        # While gateways are behind, the next request must soon say that they are not.
        hold = FEED_HOLD if is_steady and applied == self.position else 0
        query = urlencode(
            {
                "epoch": epoch,
                "after": self.position,
                "wait": hold,
                "limit": MAX_PAGE_ENTRIES,
            }
        )
        url = f"{self._source.url}?{query}"
        headers = {}
        if self._applied is not None:
            headers[FOLLOWER_APPLIED_HEADER] = str(applied)
        return await self._ask(url, hold, MAX_PAGE_BYTES, headers=headers)

    async def _take_snapshot(self) -> None:
        """Take all live entries, in lines, or as one page from an issuer without lines.

        The entries of a line come into force before the next line is read. Entries only
        add up, so half a snapshot does no harm. The position is reached with the last
        line only.
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
        # An issuer too old for gateways shows it in its answer to the next request.
        is_enough = self._applied is None
        self._reach(parts[-1], answer.sent_at, is_enough=is_enough)
        event(_LOG, logging.INFO, "feed.snapshot_taken", pages=len(parts))

    async def _ask(
        self,
        url: str,
        hold: float,
        max_bytes: int,
        take_line: TakeLine | None = None,
        headers: Mapping[str, str] = MappingProxyType({}),
    ) -> Fetched:
        headers = {
            **headers,
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
        """Store the entries, and put them in force."""
        for start in range(0, len(entries), _APPLY_AT_ONCE):
            batch = entries[start : start + _APPLY_AT_ONCE]
            self._copy.write_entries(batch)
            self._trust.enforce(batch)
            # Give other requests a turn. Answers decided before this are sent
            # (`PublicPort.send_soon`) before the entries are acknowledged.
            await asyncio.sleep(0)

    def _reach(self, page: FeedPage, sent_at: float, *, is_enough: bool = True) -> None:
        """Advance the position; the entries up to it must be in force and on disk.

        The next request acknowledges the position to the issuer.

        Args:
            page: the answer, or its last line.
            sent_at: boot-time seconds at which the request was sent.
            is_enough: whether a page up to the head renews the trust.
        """
        is_complete = page.to == page.head and is_enough
        self._copy.reached(page.epoch, page.to, sent_at if is_complete else None)
        self._brought_news = page.after < page.to
        self.epoch, self.position, self.head = page.epoch, page.to, page.head
        if self._applied is not None:
            self._applied.reached(page.epoch, page.to)
        if is_complete:
            self._trust.renew(sent_at + self._source.max_staleness)
            self.status.succeeded(sent_at)
            self._is_answered = True


def _check_was_heard(answer: Fetched, applied: int) -> None:
    """Check that the issuer has taken `applied` for what is in force.

    An issuer that does not know the header takes the position asked after for it, and
    would confirm what is not in force in the gateways.

    Raises:
        FeedError: it has not; the issuer must be upgraded first.
    """
    if answer.headers.get(FOLLOWER_APPLIED_HEADER.lower()) != str(applied):
        raise FeedError(
            f"the issuer does not know {FOLLOWER_APPLIED_HEADER}: upgrade it first"
        )
