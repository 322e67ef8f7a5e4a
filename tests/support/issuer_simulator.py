"""The issuer as a verifier sees it: a JWKS and a revocation feed, from memory.

It implements the two fetches of `verifier/sync/feed.py` with state, and can rotate,
revoke, stall, truncate, repeat, go back in time and lie. Tests that use it read as
stories.
"""

from __future__ import annotations

import uuid
from collections.abc import Callable, Mapping
from typing import Any
from urllib.parse import parse_qs, urlsplit

import orjson

from shared.feed import (
    FOLLOWER_APPLIED_HEADER,
    GOODBYE_PATH,
    EntryKind,
    FeedEntry,
    FeedPage,
    encode_page,
)
from tests.support.clock import FakeClock
from tests.support.tokens import ISSUER, TestKey, good_claims, make_token, signing_key
from verifier.sync.fetch import Fetched, FetchError, TakeLine

JWKS_URL = f"{ISSUER}/.well-known/jwks.json"
FEED_URL = f"{ISSUER}/revocations"
FEED_TOKEN = "feed-token-of-32-characters-or-more"
ACCESS_TTL = 600


class IssuerSimulator:
    """An issuer in memory.

    Attributes:
        is_down: every fetch fails while true.
        fetches: the URLs asked for, in order.
        applied: what each request for a page said to have applied, in order.
        knows_applied: whether the answer repeats that, as issuers have done since
            there are gateways that check tokens by themselves.
        goodbyes: the headers of each goodbye that arrived.
        lie: when set, every answer passes through it before it is given.
        lie_lines: when set, the lines of a snapshot pass through it.
        knows_lines: whether a snapshot comes in lines to clients that accept them.
    """

    def __init__(self, clock: FakeClock) -> None:
        self._clock = clock
        self.keys: list[TestKey] = [signing_key("first")]
        self.epoch = str(uuid.uuid4())
        self.entries: list[FeedEntry] = []
        self.head = 0
        self.is_down = False
        self.knows_lines = False
        self.page_limit = 10_000
        self.fetches: list[str] = []
        self.applied: list[int] = []
        self.knows_applied = True
        self.goodbyes: list[Mapping[str, str]] = []
        self.jwks_answer: bytes | None = None
        self.lie: Callable[[Fetched], Fetched] | None = None
        self.lie_lines: Callable[[list[bytes]], list[bytes]] | None = None

    # --- the issuer's acts ---------------------------------------------------------

    def mint(self, *, key: TestKey | None = None, **changes: Any) -> bytes:
        """Return an access token alive now."""
        return make_token(
            good_claims(self._clock.now(), **changes), key=key or self.keys[0]
        )

    def revoke(self, kind: EntryKind, key: str, minimum_generation: int = 0) -> int:
        """Write an entry; return its position."""
        self.head += 1
        prune_at = self._clock.now() + ACCESS_TTL
        self.entries.append(
            FeedEntry(self.head, kind, key, minimum_generation, prune_at)
        )
        return self.head

    def rotate(self, name: str) -> TestKey:
        """Sign with a new key from now on; the old ones stay published."""
        self.keys.insert(0, signing_key(name))
        return self.keys[0]

    def withdraw(self, key: TestKey) -> None:
        """Take a key out of the JWKS."""
        self.keys.remove(key)

    def restore_backup(self, position: int) -> None:
        """Become a database restored as it was at `position`, under a new epoch."""
        self.epoch = str(uuid.uuid4())
        self.entries = [entry for entry in self.entries if entry.seq <= position]
        self.head = position

    # --- the verifier's requests ---------------------------------------------------

    async def fetch(
        self,
        url: str,
        headers: Mapping[str, str],
        hold: float,
        max_bytes: int,
        take_line: TakeLine | None = None,
    ) -> Fetched:
        """Answer as the issuer's HTTP would, at once."""
        self.fetches.append(url)
        if self.is_down:
            raise FetchError("the issuer is down")
        answer = self._answer(url, headers)
        if take_line and self.knows_lines and url.endswith("/snapshot"):
            lines = self.snapshot_lines()
            for line in self.lie_lines(lines) if self.lie_lines else lines:
                await take_line(line, answer.sent_at)
            answer = replace_body(answer, b"")
        if self.lie is not None:
            answer = self.lie(answer)
        if len(answer.body) > max_bytes:
            raise FetchError("too large")
        return answer

    async def post(self, url: str, headers: Mapping[str, str]) -> Fetched:
        """Take a goodbye as the issuer's HTTP would, at once."""
        if self.is_down:
            raise FetchError("the issuer is down")
        assert url == f"{FEED_URL}{GOODBYE_PATH}"
        if headers.get("Authorization") != f"Bearer {FEED_TOKEN}":
            return self._fetched(401, b"")
        self.goodbyes.append(dict(headers))
        return self._fetched(204, b"")

    def _answer(self, url: str, headers: Mapping[str, str]) -> Fetched:
        if url == JWKS_URL:
            return self._answer_jwks(headers)
        if headers.get("Authorization") != f"Bearer {FEED_TOKEN}":
            return self._fetched(401, b"")
        if url == f"{FEED_URL}/snapshot":
            return self._fetched(
                200, encode_page(self.page(0, limit=len(self.entries)))
            )
        query = parse_qs(urlsplit(url).query, strict_parsing=True)
        after = int(query["after"][0])
        if query["epoch"] != [self.epoch] or after > self.head:
            return self._fetched(409, b"{}")
        self.applied.append(int(headers.get(FOLLOWER_APPLIED_HEADER, after)))
        page = self.page(after, limit=self.page_limit)
        answer = self._fetched(200, encode_page(page))
        if not self.knows_applied:
            return answer
        said = {FOLLOWER_APPLIED_HEADER.lower(): str(self.applied[-1])}
        return answer._replace(headers={**answer.headers, **said})

    def snapshot_lines(self) -> list[bytes]:
        """Return the snapshot as lines, `page_limit` entries each."""
        pages = [self.page(0, limit=self.page_limit)]
        while pages[-1].to < self.head:
            pages.append(self.page(pages[-1].to, limit=self.page_limit))
        return [encode_page(page) for page in pages]

    def page(self, after: int, *, limit: int) -> FeedPage:
        """Return the page behind `after`."""
        behind = [entry for entry in self.entries if entry.seq > after]
        entries = behind[:limit]
        whole = len(entries) == len(behind)
        return FeedPage(
            iss=ISSUER,
            epoch=self.epoch,
            after=after,
            to=self.head if whole else entries[-1].seq,
            head=self.head,
            as_of=self._clock.now() * 1_000,
            max_ttl=ACCESS_TTL,
            entries=entries,
        )

    def _answer_jwks(self, headers: Mapping[str, str]) -> Fetched:
        body = self.jwks_answer or orjson.dumps(
            {"keys": [key.jwk.to_wire() for key in self.keys]}
        )
        etag = f'"{hash(body):x}"'
        if headers.get("If-None-Match") == etag:
            return self._fetched(304, b"", etag)
        return self._fetched(200, body, etag)

    def _fetched(self, status: int, body: bytes, etag: str = "") -> Fetched:
        headers = {"cache-control": "public, max-age=300"}
        if etag:
            headers["etag"] = etag
        return Fetched(status, headers, body, self._clock.monotonic())


def with_body(change: Callable[[dict[str, Any]], None]) -> Callable[[Fetched], Fetched]:
    """Return a lie that changes the JSON body of every answer."""

    def lie(answer: Fetched) -> Fetched:
        body = orjson.loads(answer.body)
        change(body)
        return replace_body(answer, orjson.dumps(body))

    return lie


def replace_body(answer: Fetched, body: bytes) -> Fetched:
    """Return the answer with another body."""
    return answer._replace(body=body)


def truncated(answer: Fetched) -> Fetched:
    """A lie: the answer without its last bytes."""
    return replace_body(answer, answer.body[:-2])


def answering(status: int) -> Callable[[Fetched], Fetched]:
    """Return a lie that changes the status of every answer."""
    return lambda answer: answer._replace(status=status)


class Recorder:
    """Passes requests on to the issuer and keeps all other requests.

    Attributes:
        headers: the headers of each request, in order.
        limits: how long each may be held, and its bytes at most.
    """

    def __init__(self, issuer: IssuerSimulator) -> None:
        self._issuer = issuer
        self.headers: list[Mapping[str, str]] = []
        self.limits: list[tuple[float, int]] = []

    async def fetch(
        self,
        url: str,
        headers: Mapping[str, str],
        hold: float,
        max_bytes: int,
        take_line: TakeLine | None = None,
    ) -> Fetched:
        """Pass the request on."""
        self.headers.append(dict(headers))
        self.limits.append((hold, max_bytes))
        return await self._issuer.fetch(url, headers, hold, max_bytes, take_line)
