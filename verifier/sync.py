"""Keeps the trust snapshot true, on its own clock: a request never fetches (R19).

Two sources, each followed by a task of its own: the JWKS and the revocation feed. Each
has a back-off with jitter and a circuit breaker. What was good stays in force until it is
too old; a failed fetch takes nothing away (R20).
"""

from __future__ import annotations

import asyncio
import logging
import re
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, replace
from typing import Final, NamedTuple
from urllib.parse import urlencode

from circuitbreaker import CircuitBreaker

from shared.feed import (
    FOLLOWER_HEADER,
    FOLLOWER_STALENESS_HEADER,
    MAX_PAGE_ENTRIES,
    FeedError,
    FeedPage,
    parse_page,
)
from shared.log import event
from verifier.fetch import Fetch, Fetched, FetchError
from verifier.trust import JwksError, TrustSnapshot, parse_jwks

_LOG: Final = logging.getLogger(__name__)

#: Seconds the feed is asked to hold when it has no news; under the 10 s from which an
#: age is no longer called fresh.
FEED_HOLD: Final = 5
#: Seconds between two asks for the feed when the first brought no news.
FEED_REST: Final = 0.05
#: Seconds between two asks for the JWKS caused by an unknown kid.
KEYS_COOL_DOWN: Final = 10.0
#: Bounds of the JWKS period, whatever max-age says, seconds.
KEYS_PERIOD: Final = (5.0, 300.0)
BACK_OFF: Final = (0.2, 3.0)
MAX_JWKS_BYTES: Final = 262_144
MAX_PAGE_BYTES: Final = 4 * 1_048_576
MAX_SNAPSHOT_BYTES: Final = 512 * 1_048_576
#: A sweep of expired revocations is cut in slices, one a second.
PRUNE_PARTS: Final = 64
_APPLY_AT_ONCE: Final = 5_000

Sleep = Callable[[float], Awaitable[None]]
Random = Callable[[], float]


class TrustHolder:
    """Holds the present snapshot; each change swaps in a whole new one."""

    def __init__(self) -> None:
        self.snapshot = TrustSnapshot()


@dataclass(slots=True)
class SourceStatus:
    """How a source is doing, for `/status` and the metrics.

    Attributes:
        last_success: monotonic seconds when the last good answer was asked for.
        failures: failed attempts since then.
        failures_total: failed attempts since the start.
        last_error: why the last attempt failed; empty when it did not.
    """

    last_success: float | None = None
    failures: int = 0
    failures_total: int = 0
    last_error: str = ""

    def succeeded(self, sent_at: float) -> None:
        """Note a good answer to a request sent at `sent_at`."""
        self.last_success, self.failures, self.last_error = sent_at, 0, ""

    def failed(self, error: Exception) -> None:
        """Note a failed attempt."""
        self.failures += 1
        self.failures_total += 1
        self.last_error = str(error)


class FeedSource(NamedTuple):
    """Where the feed is and who we are to it.

    Attributes:
        url: the feed's URL.
        token: the feed credential.
        issuer: the `iss` every page must carry.
        follower_id: our UUID, kept for this process's life.
        max_staleness: our hard bound, seconds.
    """

    url: str
    token: str
    issuer: str
    follower_id: str
    max_staleness: float


class FeedFollower:
    """Follows the revocation feed (DESIGN.md, section 4)."""

    def __init__(self, source: FeedSource, fetch: Fetch, trust: TrustHolder) -> None:
        self._source = source
        self._fetch = fetch
        self._trust = trust
        self.status = SourceStatus()
        self.epoch: str | None = None
        self.position = 0
        self.head = 0
        self._brought_news = False

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
        query = urlencode(
            {
                "epoch": self.epoch,
                "after": self.position,
                "wait": FEED_HOLD,
                "limit": MAX_PAGE_ENTRIES,
            }
        )
        url = f"{self._source.url}?{query}"
        answer = await self._ask(url, FEED_HOLD, MAX_PAGE_BYTES)
        if answer.status == 409:
            # Another epoch, or a count that went back: a restored database. What we have
            # stays, the snapshot is added to it.
            event(_LOG, logging.WARNING, "feed.epoch_changed", epoch=self.epoch)
            await self._take_snapshot()
            self._brought_news = False
            return
        page = self._read(answer)
        if page.epoch != self.epoch or page.after != self.position:
            raise FeedError("the page does not follow our position")
        if page.to == page.after < page.head:
            # We ask again at once while there is more: that must not turn in a circle.
            raise FeedError("the page brings us no further")
        await self._apply(page, answer.sent_at)

    async def _take_snapshot(self) -> None:
        url = f"{self._source.url}/snapshot"
        answer = await self._ask(url, FEED_HOLD, MAX_SNAPSHOT_BYTES)
        page = self._read(answer)
        if page.after != 0 or page.to != page.head:
            raise FeedError("the snapshot is not whole")
        await self._apply(page, answer.sent_at)
        event(_LOG, logging.INFO, "feed.snapshot_taken", entries=len(page.entries))

    async def _ask(self, url: str, hold: float, max_bytes: int) -> Fetched:
        headers = {
            "Authorization": f"Bearer {self._source.token}",
            "Accept": "application/json",
            FOLLOWER_HEADER: self._source.follower_id,
            FOLLOWER_STALENESS_HEADER: str(int(self._source.max_staleness)),
        }
        return await self._fetch(url, headers, hold, max_bytes)

    def _read(self, answer: Fetched) -> FeedPage:
        if answer.status != 200:
            raise FetchError(f"the feed answered {answer.status}")
        page = parse_page(answer.body)
        if page.iss != self._source.issuer:
            raise FeedError("iss: not our issuer")
        return page

    async def _apply(self, page: FeedPage, sent_at: float) -> None:
        """Union the entries in, then say how far we are: never the other way round."""
        for start in range(0, len(page.entries), _APPLY_AT_ONCE):
            entries = page.entries[start : start + _APPLY_AT_ONCE]
            snapshot = self._trust.snapshot
            self._trust.snapshot = replace(
                snapshot, revocations=snapshot.revocations.apply(entries)
            )
            await asyncio.sleep(0)
        self._brought_news = page.after < page.to
        self.epoch, self.position, self.head = page.epoch, page.to, page.head
        if page.to == page.head:
            fresh_until = sent_at + self._source.max_staleness
            self._trust.snapshot = replace(
                self._trust.snapshot,
                fresh_until=max(fresh_until, self._trust.snapshot.fresh_until),
            )
            self.status.succeeded(sent_at)


_MAX_AGE: Final = re.compile(r"(?:^|[\s,])max-age=([0-9]{1,9})(?:$|[\s,;])")


class KeysRefresher:
    """Refreshes the verification keys from the JWKS."""

    def __init__(
        self, url: str, fetch: Fetch, trust: TrustHolder, *, keys_max_age: float
    ) -> None:
        self._url = url
        self._fetch = fetch
        self._trust = trust
        self._keys_max_age = keys_max_age
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
        if self._etag:
            headers["If-None-Match"] = self._etag
        answer = await self._fetch(self._url, headers, 0.0, MAX_JWKS_BYTES)
        if answer.status == 200:
            keys = parse_jwks(answer.body)
            if keys.version != self._trust.snapshot.keys.version:
                event(_LOG, logging.INFO, "keys.changed", kids=sorted(keys.keys))
            else:
                keys = self._trust.snapshot.keys
            self._etag = answer.headers.get("etag", "")
        elif answer.status == 304 and self._etag:
            keys = self._trust.snapshot.keys
        else:
            raise FetchError(f"the JWKS answered {answer.status}")
        self._trust.snapshot = replace(
            self._trust.snapshot,
            keys=keys,
            keys_until=answer.sent_at + self._keys_max_age,
        )
        self.period = _period(answer)
        self.status.succeeded(answer.sent_at)


def _period(answer: Fetched) -> float:
    match = _MAX_AGE.search(answer.headers.get("cache-control", ""))
    least, most = KEYS_PERIOD
    return min(max(float(match[1]), least), most) if match else most


def new_breaker(name: str) -> CircuitBreaker:
    """Return a breaker for one source: open for 2 s after 5 failures in a row."""
    return CircuitBreaker(
        failure_threshold=5,
        recovery_timeout=2,
        expected_exception=(FetchError, FeedError, JwksError),
        name=name,
    )


def back_off(failures: int, random: Random) -> float:
    """Return seconds to wait after this many failures: doubling, jittered, capped."""
    least, most = BACK_OFF
    doubled: float = least * 2 ** min(failures - 1, 10)
    return min(most, doubled) * (0.5 + random() / 2)


class Pace(NamedTuple):
    """How a task waits.

    Attributes:
        sleep: waits that many seconds.
        random: gives a number from 0 to 1, for the jitter.
    """

    sleep: Sleep
    random: Random


async def follow(
    source: FeedFollower | KeysRefresher,
    breaker: CircuitBreaker,
    pace: Pace,
    rest: Callable[[], Awaitable[None]],
) -> None:
    """Step for ever: rest after success, back off after failure; never gives up."""
    while True:
        if breaker.opened:
            # `call_async` itself does not look: only the decorated form does.
            await pace.sleep(breaker.open_remaining)
            continue
        try:
            await breaker.call_async(source.step)
        except (FetchError, FeedError, JwksError) as error:
            source.status.failed(error)
            event(
                _LOG,
                logging.WARNING,
                "sync.failed",
                source=breaker.name,
                failures=source.status.failures,
                error=str(error),
            )
            await pace.sleep(back_off(source.status.failures, pace.random))
        except Exception as error:
            # A fault of ours must not end the task: the gate would go stale for good.
            source.status.failed(error)
            _LOG.exception("sync.crashed", extra={"fields": {"source": breaker.name}})
            await pace.sleep(BACK_OFF[1])
        else:
            await rest()


async def prune(trust: TrustHolder, now: Callable[[], int], sleep: Sleep) -> None:
    """Drop expired revocations for ever, one slice a second."""
    part = 0
    while True:
        await sleep(1.0)
        snapshot = trust.snapshot
        revocations = snapshot.revocations.pruned(now(), part, PRUNE_PARTS)
        trust.snapshot = replace(snapshot, revocations=revocations)
        part = (part + 1) % PRUNE_PARTS
