"""Stands in for the issuer: keys, and feeds that grow while they are followed."""

from __future__ import annotations

import threading
import time
import uuid
from collections.abc import Sequence
from contextlib import suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import parse_qs, urlsplit

from loadtests.bench.passes import LIFETIME, PassOffice
from shared.feed import (
    FOLLOWER_APPLIED_HEADER,
    LINES_TYPE,
    MAX_PAGE_ENTRIES,
    EntryKind,
    FeedEntry,
    FeedPage,
    encode_page,
)

#: Of ten entries one is a user with a generation, and one a single token.
_KINDS = (EntryKind.USER, EntryKind.JTI, *(EntryKind.SID,) * 8)
#: Users have been revoked so many times.
_GENERATIONS = 3


class GrowingFeeds:
    """Answers for `/jwks.json` and `/feeds/NAME/revocations`.

    A page without news is held as the issuer holds it.

    Args:
        office: the issuer of the tokens.
    """

    def __init__(self, office: PassOffice) -> None:
        self._office = office
        self._feeds: dict[str, list[FeedEntry]] = {}
        self._news = threading.Condition()
        self._is_closing = False

    def add(self, name: str, count: int) -> str:
        """Add that many revocations at once; return a session that is among them."""
        sid = str(uuid.uuid4())
        with self._news:
            feed = self._feeds.setdefault(name, [])
            feed.extend(_entries(len(feed), count, sid))
            self._news.notify_all()
        return sid

    def close(self) -> None:
        """End the requests that are held."""
        with self._news:
            self._is_closing = True
            self._news.notify_all()

    def answer(self, target: str) -> bytes:
        """Return the body for a path with query; wait for news that are asked for."""
        url = urlsplit(target)
        if url.path == "/jwks.json":
            return self._office.jwks
        feed = self._feeds[url.path.split("/")[2]]
        if url.path.endswith("/snapshot"):
            head = len(feed)
            starts = range(0, max(head, 1), MAX_PAGE_ENTRIES)
            return b"".join(self._page(feed, after, head) + b"\n" for after in starts)
        query = parse_qs(url.query)
        after = int(query["after"][0])
        with self._news:
            self._news.wait_for(
                lambda: self._is_closing or len(feed) > after, float(query["wait"][0])
            )
        return self._page(feed, after, len(feed))

    def _page(self, feed: Sequence[FeedEntry], after: int, head: int) -> bytes:
        to = min(after + MAX_PAGE_ENTRIES, head)
        page = FeedPage(
            iss=self._office.issuer,
            epoch=self._office.epoch,
            after=after,
            to=to,
            head=head,
            as_of=time.time_ns() // 1_000_000,
            max_ttl=LIFETIME,
            entries=feed[after:to],
        )
        return encode_page(page)


class GrowingSource(GrowingFeeds):
    """Serves them on loopback.

    Args:
        office: the issuer of the tokens.
        port: where it listens.
    """

    def __init__(self, office: PassOffice, port: int) -> None:
        super().__init__(office)
        self.url = f"http://127.0.0.1:{port}"
        self._server = ThreadingHTTPServer(("127.0.0.1", port), self._handler())
        self._server.daemon_threads = True
        threading.Thread(target=self._server.serve_forever, daemon=True).start()

    def feed_url(self, name: str) -> str:
        """Return the URL of the feed of that name."""
        return f"{self.url}/feeds/{name}/revocations"

    def close(self) -> None:
        """Stop serving, and end the requests that are held."""
        super().close()
        self._server.shutdown()
        self._server.server_close()

    def _handler(self) -> type[BaseHTTPRequestHandler]:
        answer = self.answer

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_GET(self) -> None:
                body = answer(self.path)
                is_snapshot = self.path.endswith("/snapshot")
                # The follower may have been stopped meanwhile.
                with suppress(ConnectionError):
                    self.send_response(200)
                    kind = LINES_TYPE if is_snapshot else "application/json"
                    self.send_header("Content-Type", kind)
                    self.send_header("Content-Length", str(len(body)))
                    applied = self.headers[FOLLOWER_APPLIED_HEADER]
                    if applied:
                        self.send_header(FOLLOWER_APPLIED_HEADER, applied)
                    self.end_headers()
                    self.wfile.write(body)

            def handle_one_request(self) -> None:
                # Likewise while its next request is waited for.
                with suppress(ConnectionError):
                    super().handle_one_request()

            def log_message(self, *_: object) -> None:
                """Say nothing: the terminal is the table's."""

        return Handler


def _entries(before: int, count: int, sid: str) -> list[FeedEntry]:
    """Return entries of the usual kinds; the last one ends this session."""
    prune_at = int(time.time()) + LIFETIME
    made = []
    for seq in range(before + 1, before + count + 1):
        kind = _KINDS[seq % len(_KINDS)]
        least = 1 + seq % _GENERATIONS if kind is EntryKind.USER else 0
        made.append(FeedEntry(seq, kind, str(uuid.uuid4()), least, prune_at))
    made[-1] = FeedEntry(before + count, EntryKind.SID, sid, 0, prune_at)
    return made
