"""The only module that requests over the network: from the configured address only
(R21).
"""

from __future__ import annotations

import asyncio
import gzip
import os
import threading
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from shared.outgoing.authorities import Authorities
from shared.outgoing.bodies import PIECE_BYTES
from verifier.sync.fetch import (
    LEAST_BYTES_PER_SECOND,
    MAX_LINE_BYTES,
    MAX_UNLINED_BYTES,
    FetchError,
    HttpSource,
    build_extension,
)

#: Plain HTTP needs none; to read the system's takes a while.
AUTHORITIES = Authorities("VERIFIER_CA_FILE", "")


class Site:
    """A server on loopback that records the requests it gets.

    Attributes:
        url: its base.
        asked: the targets it was asked for.
        location: where it redirects callers to; it answers 200 when that is empty.
    """

    def __init__(self) -> None:
        self.asked: list[str] = []
        self.location = ""
        site = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                site.asked.append(self.path)
                self.send_response(302 if site.location else 200)
                if site.location:
                    self.send_header("Location", site.location)
                self.send_header("Content-Length", "100")
                self.end_headers()
                self.wfile.write(b"k" * 100)

            def log_message(self, *_: object) -> None:
                """Say nothing."""

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_port}"


@pytest.fixture
def sites() -> Iterator[tuple[Site, Site]]:
    both = Site(), Site()
    threads = [threading.Thread(target=site.server.serve_forever) for site in both]
    for thread in threads:
        thread.start()
    yield both
    for site, thread in zip(both, threads, strict=True):
        site.server.shutdown()
        thread.join()
        site.server.server_close()


@pytest.fixture
async def source() -> AsyncIterator[HttpSource]:
    source = HttpSource(AUTHORITIES)
    yield source
    await source.close()


async def test_cve_2026_48522_a_redirect_is_not_followed(
    sites: tuple[Site, Site], source: HttpSource
) -> None:
    """R21: else one forged answer could choose the source of the keys."""
    issuer, other = sites
    issuer.location = f"{other.url}/keys"
    fetched = await source.fetch(f"{issuer.url}/keys", {}, 0.0, 1_000)
    assert fetched.status == 302
    assert (issuer.asked, other.asked) == (["/keys"], [])


@pytest.fixture
def proxy(sites: tuple[Site, Site]) -> Iterator[Site]:
    """The second site, named as everybody's proxy by the environment."""
    names = ("HTTP_PROXY", "http_proxy", "ALL_PROXY", "NO_PROXY", "no_proxy")
    before = {name: os.environ.pop(name, None) for name in names}
    os.environ["HTTP_PROXY"] = os.environ["http_proxy"] = sites[1].url
    yield sites[1]
    for name, value in before.items():
        os.environ.pop(name, None)
        if value is not None:
            os.environ[name] = value


async def test_no_proxy_is_taken_from_the_environment(
    sites: tuple[Site, Site], proxy: Site
) -> None:
    """R21: it would see the feed's credential."""
    source = HttpSource(AUTHORITIES)
    fetched = await source.fetch(f"{sites[0].url}/revocations", {}, 0.0, 1_000)
    await source.close()
    assert fetched.status == 200
    assert (sites[0].asked, proxy.asked) == (["/revocations"], [])


async def test_an_answer_over_the_limit_is_a_failure(
    sites: tuple[Site, Site], source: HttpSource
) -> None:
    assert len((await source.fetch(sites[0].url, {}, 0.0, 100)).body) == 100
    with pytest.raises(FetchError, match="over 99 bytes"):
        await source.fetch(sites[0].url, {}, 0.0, 99)


@pytest.fixture
def lines_site() -> Iterator[Callable[[bytes, str], str]]:
    """Give a function that serves a body of a type and returns its URL."""
    servers: list[tuple[ThreadingHTTPServer, threading.Thread]] = []

    def serve(body: bytes, content_type: str) -> str:
        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                self.send_response(200)
                self.send_header("Content-Type", content_type)
                self.end_headers()
                for start in range(0, len(body), 7):
                    self.wfile.write(body[start : start + 7])

            def log_message(self, *_: object) -> None:
                """Say nothing."""

        server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        servers.append((server, thread))
        return f"http://127.0.0.1:{server.server_port}/"

    yield serve
    for server, thread in servers:
        server.shutdown()
        thread.join()
        server.server_close()


@pytest.fixture
def gzip_site() -> Iterator[str]:
    """The URL of a server that answers a small gzip of 64 MiB of blanks."""
    packed = gzip.compress(b" " * (2 * MAX_UNLINED_BYTES))

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Encoding", "gzip")
            self.send_header("Content-Length", str(len(packed)))
            self.end_headers()
            with suppress(ConnectionError):
                self.wfile.write(packed)

        def log_message(self, *_: object) -> None:
            """Say nothing."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}/"
    server.shutdown()
    thread.join()
    server.server_close()


async def take_all(
    source: HttpSource, url: str, max_bytes: int = 1_000
) -> tuple[list[bytes], bytes]:
    lines: list[bytes] = []

    async def take(line: bytes, _sent_at: float) -> None:
        lines.append(line)

    answer = await source.fetch(url, {}, 0.0, max_bytes, take)
    return lines, answer.body


async def test_lines_are_handed_on_however_they_are_cut(
    source: HttpSource, lines_site: Callable[[bytes, str], str]
) -> None:
    url = lines_site(b"first\nthe second one\n\nlast\n", "application/x-ndjson")
    assert await take_all(source, url) == (
        [b"first", b"the second one", b"", b"last"],
        b"",
    )


async def test_an_answer_that_is_not_in_lines_is_a_body(
    source: HttpSource, lines_site: Callable[[bytes, str], str]
) -> None:
    url = lines_site(b"{}\n{}\n", "application/json")
    assert await take_all(source, url) == ([], b"{}\n{}\n")


async def test_an_answer_that_is_not_in_lines_has_a_page_s_share_of_the_limit(
    source: HttpSource, gzip_site: str
) -> None:
    """It is held as a whole: half a megabyte of gzip took 1.4 GB."""
    with pytest.raises(FetchError, match=f"over {MAX_UNLINED_BYTES} bytes"):
        await take_all(source, gzip_site, max_bytes=1 << 30)


async def test_others_run_while_a_small_packet_becomes_a_large_body(
    source: HttpSource, gzip_site: str
) -> None:
    """A liveness probe went unanswered for seconds."""
    turns = 0

    async def count() -> None:
        nonlocal turns
        while True:
            turns += 1
            await asyncio.sleep(0)

    counting = asyncio.create_task(count())
    with pytest.raises(FetchError):
        await take_all(source, gzip_site, max_bytes=1 << 30)
    counting.cancel()
    assert turns >= MAX_UNLINED_BYTES // PIECE_BYTES


async def test_the_deadline_moves_with_bytes_on_the_wire() -> None:
    """Decoded bytes are cheap to make: with them an answer bought itself time."""
    async with asyncio.timeout(60) as deadline:
        before = deadline.when()
        extend = build_extension(deadline)
        extend(LEAST_BYTES_PER_SECOND)
        assert deadline.when() == before + 1


async def test_an_answer_that_ends_within_a_line_is_a_failure(
    source: HttpSource, lines_site: Callable[[bytes, str], str]
) -> None:
    url = lines_site(b"first\nsec", "application/x-ndjson")
    with pytest.raises(FetchError, match="within a line"):
        await take_all(source, url)


async def test_lines_are_bounded_together_and_each(
    source: HttpSource, lines_site: Callable[[bytes, str], str]
) -> None:
    url = lines_site(b"first\n" * 10, "application/x-ndjson")
    with pytest.raises(FetchError, match="over 50 bytes"):
        await take_all(source, url, max_bytes=50)
    url = lines_site(b"x" * (MAX_LINE_BYTES + 7), "application/x-ndjson")
    with pytest.raises(FetchError, match="a line is over"):
        await take_all(source, url, max_bytes=1 << 30)
