"""Keeps the verification keys of one issuer true, in the background (R19).

Good keys stay in force until they are too old; a failed fetch removes nothing (R20).
"""

from __future__ import annotations

import asyncio
import logging
import re
from collections.abc import Awaitable, Callable, Iterable
from typing import Final, NamedTuple, Protocol

from shared.feed import FOLLOWER_HEADER, EntryKind, FeedEntry
from shared.log import event
from verifier.check.trust import KeySet, Trust, parse_jwks
from verifier.sync.fetch import Fetch, Fetched, unexpected
from verifier.sync.staleness import SourceStatus

_LOG: Final = logging.getLogger(__name__)

#: Seconds between two JWKS requests caused by an unknown kid.
COOL_DOWN: Final = 10.0
#: Least and most seconds between two JWKS requests, for any max-age.
PERIOD: Final = (5.0, 300.0)
#: Seconds after which a requested refresh that brought no news is repeated, once.
#: An issuer, or a cache before it, may answer with keys that are a second old.
REPEAT_AFTER: Final = 1.5
MAX_JWKS_BYTES: Final = 262_144
#: An ETag that can be sent back (RFC 9110, section 8.8.3). Anything else in an answer
#: is none: other bytes than ASCII could not be written into a request.
_ETAG: Final = re.compile(r"[\x21-\x7e]{1,1000}")
_MAX_AGE: Final = re.compile(r"(?:^|[\s,])max-age=([0-9]{1,9})(?:$|[\s,;])")

#: Returns the URL of a JWKS; raises FetchError when it cannot be found out.
Locate = Callable[[], Awaitable[str]]


class KeysWriter(Protocol):
    """Stores a JWKS for the next start."""

    def keys_refreshed(self, body: bytes | None, asked_at: float) -> None:
        """Store a JWKS; None: the stored one is still right."""


class KeysSource(NamedTuple):
    """Whose keys are followed, and how they are found and read.

    Attributes:
        issuer: the `iss` of the tokens.
        name: the issuer's name in the log.
        locate: returns the URL of the JWKS.
        parse: returns the usable keys of a JWKS, or raises JwksError.
        follower_id: our UUID as a follower of the feed; empty: none is sent.
        usual_period: seconds between two requests where an answer has no max-age.
    """

    issuer: str
    name: str
    locate: Locate
    parse: Callable[[bytes], Awaitable[KeySet]]
    follower_id: str = ""
    usual_period: float = PERIOD[1]


def own_keys(issuer: str, name: str, url: str, follower_id: str = "") -> KeysSource:
    """Return the source of our own issuer's keys, whose URL is configured."""

    async def locate() -> str:
        return url

    async def parse(body: bytes) -> KeySet:
        return parse_jwks(body)

    return KeysSource(issuer, name, locate, parse, follower_id)


class KeysRefresher:
    """Refreshes the verification keys of one issuer from its JWKS.

    Args:
        source: whose keys, and where.
        fetch: sends requests.
        trust: gets the keys.
        keys_max_age: seconds that keys are good after they were asked for.
        copy: stores the JWKS; None stores nothing.

    Attributes:
        status: of the attempts.
        period: seconds until the next one.
    """

    def __init__(
        self,
        source: KeysSource,
        fetch: Fetch,
        trust: Trust,
        *,
        keys_max_age: float,
        copy: KeysWriter | None = None,
    ) -> None:
        self.source = source
        self._fetch = fetch
        self._trust = trust
        self._keys_max_age = keys_max_age
        self._copy = copy
        self._etag = ""
        self._asked_at = float("-inf")
        self._is_requested = asyncio.Event()
        self._is_repeat_due = False
        self.status = SourceStatus()
        self.period = PERIOD[0]

    def request(self, boottime: float) -> None:
        """Request a refresh, because a token names an unknown key.

        There is at most one per cool-down. It begins here, before the fetch, and also
        counts when the fetch fails: a failing issuer must not be asked once per token
        (CVE-2026-48524).
        """
        if boottime >= self._asked_at + COOL_DOWN:
            self._asked_at = boottime
            self._refresh_soon()

    def observe(self, entries: Iterable[FeedEntry]) -> None:
        """Request a refresh when one of these entries of our feed revokes a key.

        The issuer signs with another one from then on. Its feed is trusted, so there
        is no cool-down, and that of a later `request` is not claimed.
        """
        if any(entry.kind is EntryKind.KID for entry in entries):
            self._refresh_soon()

    def _refresh_soon(self) -> None:
        self._is_repeat_due = True
        self._is_requested.set()

    async def wait(self, seconds: float) -> None:
        """Wait until the period is over or a refresh is requested."""
        try:
            # Python 3.11's `wait_for` loses a cancellation that comes with the event.
            async with asyncio.timeout(seconds):
                await self._is_requested.wait()
        except TimeoutError:
            return
        finally:
            self._is_requested.clear()

    async def step(self) -> None:
        """Send one request; replace the keys only when the answer is a usable set.

        Raises:
            FetchError, JwksError: without a usable set; the keys in force stay.
        """
        source = self.source
        headers = {"Accept": "application/jwk-set+json, application/json"}
        if source.follower_id:
            # This and the ETag show the issuer which keys we have.
            headers[FOLLOWER_HEADER] = source.follower_id
        if self._etag:
            headers["If-None-Match"] = self._etag
        url = await source.locate()
        answer = await self._fetch(url, headers, 0.0, MAX_JWKS_BYTES)
        before, etag = self._trust.snapshot.of(source.issuer).keys, self._etag
        if answer.status == 200:
            keys = await source.parse(answer.body)
            found = _ETAG.fullmatch(answer.headers.get("etag", ""))
            self._etag = found[0] if found else ""
        elif answer.status == 304 and self._etag:
            keys = before
        else:
            raise unexpected(answer, url)
        has_new_keys = keys.version != before.version
        if has_new_keys:
            kids = sorted(keys.keys)
            event(_LOG, logging.INFO, "keys.changed", issuer=source.name, kids=kids)
        until = answer.sent_at + self._keys_max_age
        self._trust.trust_keys(source.issuer, keys, until)
        if self._copy is not None:
            body = answer.body if answer.status == 200 else None
            self._copy.keys_refreshed(body, answer.sent_at)
        is_repeat_due, self._is_repeat_due = self._is_repeat_due, False
        if source.follower_id and self._etag not in {"", etag}:
            # Ask again soon: that request shows our issuer that we have the new keys.
            self.period = PERIOD[0]
        elif is_repeat_due and not has_new_keys:
            self.period = REPEAT_AFTER
        else:
            self.period = _period(answer, source.usual_period, self._keys_max_age)
        self.status.succeeded(answer.sent_at)


def _period(answer: Fetched, usual: float, keys_max_age: float) -> float:
    """Return the seconds until the next request.

    Two may fail before the keys are too old, whatever `max-age` the issuer sends.
    """
    match = _MAX_AGE.search(answer.headers.get("cache-control", ""))
    least, most = PERIOD[0], min(PERIOD[1], keys_max_age / 3)
    return min(max(float(match[1]) if match else usual, least), most)
