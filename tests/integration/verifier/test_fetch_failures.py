"""What goes wrong on the way to the issuer, and the word that an operator gets for
it.
"""

from __future__ import annotations

import asyncio
import gzip
import itertools
import socket
import ssl
import tracemalloc
import zlib
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import ExitStack, closing
from pathlib import Path

import pytest

from shared.outgoing.authorities import Authorities
from shared.outgoing.bodies import PIECE_BYTES
from tests.support.certificates import EXPIRED, NOT_YET, Authority
from tests.support.processes import eventually, free_port
from tests.support.raw_server import (
    Answer,
    RawServer,
    http,
    raw_server,
    saying,
    then_closing,
)
from verifier.sync.fetch import MAX_LINE_BYTES, FetchError, HttpSource, unexpected

Serve = Callable[..., RawServer]
MIB = 1_048_576


@pytest.fixture(scope="module")
def authority() -> Authority:
    return Authority()


@pytest.fixture
def ca_file(tmp_path: Path, authority: Authority) -> Path:
    path = tmp_path / "ca.pem"
    path.write_bytes(authority.certificate)
    return path


@pytest.fixture
async def source(ca_file: Path) -> AsyncIterator[HttpSource]:
    source = HttpSource(Authorities("VERIFIER_CA_FILE", str(ca_file)))
    yield source
    await source.close()


@pytest.fixture
def serve() -> Iterator[Serve]:
    """Give a function that starts a raw server."""
    with ExitStack() as stack:

        def start(answer: Answer, tls: ssl.SSLContext | None = None) -> RawServer:
            return stack.enter_context(raw_server(answer, tls))

        yield start


async def failure(
    source: HttpSource, url: str, *, max_bytes: int = 1_000
) -> FetchError:
    """Fetch what cannot be fetched; return why."""
    with pytest.raises(FetchError) as caught:
        await source.fetch(url, {}, 0.0, max_bytes)
    assert str(caught.value).isprintable()
    assert len(str(caught.value)) < 400
    return caught.value


# --- TLS -----------------------------------------------------------------------------


async def test_a_certificate_of_our_authority_is_taken(
    source: HttpSource, serve: Serve, authority: Authority
) -> None:
    server = serve(saying(http(b"keys")), authority.serve("127.0.0.1"))
    assert (await source.fetch(server.url, {}, 0.0, 100)).body == b"keys"


@pytest.mark.parametrize(
    ("make", "kind", "told"),
    [
        (lambda _: Authority("other").serve("127.0.0.1"), "unknown_authority", "local"),
        (lambda a: a.serve("other.test"), "wrong_name", "127.0.0.1"),
        (lambda a: a.serve("127.0.0.1", days=EXPIRED), "certificate_expired", "expi"),
        (
            lambda a: a.serve("127.0.0.1", days=NOT_YET),
            "certificate_not_yet_valid",
            "not yet valid",
        ),
    ],
    ids=["authority", "name", "expired", "not yet"],
)
async def test_r59_a_certificate_that_is_refused_is_published_by_its_fault(
    source: HttpSource,
    serve: Serve,
    authority: Authority,
    make: Callable[[Authority], ssl.SSLContext],
    kind: str,
    told: str,
) -> None:
    server = serve(saying(http(b"keys")), make(authority))
    error = await failure(source, f"{server.url}/keys?after=1")
    assert error.kind == kind
    assert told in str(error)
    assert error.url == f"{server.url}/keys"
    assert server.requests == []


async def test_tls_towards_a_server_that_speaks_none(source: HttpSource) -> None:
    with socket.create_server(("127.0.0.1", 0)) as plain:

        def answer() -> None:
            connection, _ = plain.accept()
            with closing(connection):
                connection.recv(1)
                connection.sendall(http(b"", status="400 Bad Request"))

        answering = asyncio.create_task(asyncio.to_thread(answer))
        error = await failure(source, f"https://127.0.0.1:{plain.getsockname()[1]}/")
        await answering
    assert error.kind == "tls_failed"


# --- the connection
# --------------------------------------------------------------------


async def test_nothing_listens(source: HttpSource) -> None:
    error = await failure(source, f"http://127.0.0.1:{free_port()}/keys")
    assert error.kind == "refused"


@pytest.mark.parametrize("host", ["gatehouse.invalid", "a." * 30 + "invalid"])
async def test_no_such_host(source: HttpSource, host: str) -> None:
    error = await failure(source, f"https://user:secret@{host}/keys")
    assert error.kind == "no_such_host"
    assert error.url == f"https://{host}/keys"
    assert "secret" not in str(error)


async def test_a_server_that_says_nothing(
    source: HttpSource, serve: Serve, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("verifier.sync.fetch.READ_TIMEOUT", 0.1)
    server = serve(saying())
    assert (await failure(source, server.url)).kind == "timeout"


@pytest.mark.parametrize(
    ("answer", "kind"),
    [
        (then_closing(), "closed_early"),
        (then_closing(b"HTTP/1.1 200 O"), "closed_early"),
        (
            then_closing(b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nfive!"),
            "closed_early",
        ),
        (
            then_closing(
                b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nfi"
            ),
            "closed_early",
        ),
        (then_closing(b"220 mail.test ESMTP\r\n500 bad command\r\n\r\n"), "not_http"),
        (then_closing(b"\x15\x03\x01\x00\x02\x02\x0a\r\n\r\n"), "not_http"),
        (saying(b"HTTP/1.1 200 OK\r\n", b"X: " + b"y" * 200_000), "too_large"),
        (saying(b"HTTP/1.1 200 OK\r\n" + b"X-Y: z\r\n" * 50_000), "too_large"),
    ],
    ids=[
        "at once",
        "in the head",
        "in the body",
        "in a chunk",
        "SMTP",
        "a TLS alert",
        "a long header",
        "many headers",
    ],
)
async def test_an_answer_that_is_none(
    source: HttpSource, serve: Serve, answer: Answer, kind: str
) -> None:
    """Headers are bounded as well, before any of them is looked at."""
    assert (await failure(source, serve(answer).url)).kind == kind


# --- time
# ------------------------------------------------------------------------------


def dripping(*parts: bytes, drip: bytes) -> Answer:
    """Return an answer that never ends, a few bytes at a time."""

    def answer(connection: socket.socket) -> None:
        for part in parts:
            connection.sendall(part)
        connection.settimeout(0.02)
        for _ in itertools.count():
            connection.sendall(drip)
            # Waits, and sees when the other end is gone.
            try:
                if not connection.recv(1):
                    return
            except TimeoutError:
                continue

    return answer


HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: application/x-ndjson\r\n"


@pytest.mark.parametrize(
    "answer",
    [
        dripping(HEAD, drip=b"X"),
        dripping(drip=b"HTTP/1.1 103 Early Hints\r\n\r\n"),
        dripping(HEAD, b"Content-Length: 1000000\r\n\r\n", drip=b"x"),
        dripping(HEAD, b"Transfer-Encoding: chunked\r\n\r\n", drip=b"1\r\n\n\r\n"),
        dripping(HEAD, b"Transfer-Encoding: chunked\r\n\r\n1;", drip=b"x"),
    ],
    ids=["headers", "interim answers", "body", "lines", "chunk extension"],
)
async def test_r59_an_answer_that_drips_ends_at_its_deadline(
    source: HttpSource,
    serve: Serve,
    answer: Answer,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Each wait is short, and so no wait alone would ever end it."""
    monkeypatch.setattr("verifier.sync.fetch.ANSWER_TIMEOUT", 0.3)
    monkeypatch.setattr("verifier.sync.fetch.READ_TIMEOUT", 1_000)

    async def take(_line: bytes, _sent_at: float) -> None:
        """Take it."""

    with pytest.raises(FetchError) as caught:
        await source.fetch(serve(answer).url, {}, 0.0, MIB, take)
    assert caught.value.kind == "timeout"


async def test_an_answer_that_is_large_gets_time_for_what_comes(
    source: HttpSource, serve: Serve, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A first snapshot over a slow line, far beyond what a small answer may take."""
    monkeypatch.setattr("verifier.sync.fetch.ANSWER_TIMEOUT", 0.5)
    monkeypatch.setattr("verifier.sync.fetch.LEAST_BYTES_PER_SECOND", 65_536)
    pieces = 30

    def answer(connection: socket.socket) -> None:
        head = f"HTTP/1.1 200 OK\r\nContent-Length: {65_536 * pieces}\r\n\r\n"
        connection.sendall(head.encode())
        connection.settimeout(0.03)
        for _ in range(pieces):
            connection.sendall(b"x" * 65_536)
            try:
                connection.recv(1)
            except TimeoutError:
                continue

    fetched = await source.fetch(serve(answer).url, {}, 0.0, 4 * MIB)
    assert len(fetched.body) == 65_536 * pieces


# --- size
# ------------------------------------------------------------------------------


def gzipped(body: bytes, *headers: str) -> bytes:
    return http(gzip.compress(body), "Content-Encoding: gzip", *headers)


async def test_gzip_is_asked_for_and_decoded(source: HttpSource, serve: Serve) -> None:
    body = bytes(range(256)) * 1_000
    server = serve(saying(gzipped(body)))
    assert (await source.fetch(server.url, {}, 0.0, MIB)).body == body
    assert b"accept-encoding: gzip\r\n" in server.requests[0].lower()


@pytest.mark.parametrize("size", [0, 1, PIECE_BYTES, PIECE_BYTES + 1, 3 * PIECE_BYTES])
async def test_gzip_is_decoded_in_whole_pieces(
    source: HttpSource, serve: Serve, size: int
) -> None:
    server = serve(saying(gzipped(b"x" * size)))
    assert len((await source.fetch(server.url, {}, 0.0, MIB)).body) == size


async def test_lines_may_be_gzipped(source: HttpSource, serve: Serve) -> None:
    lines: list[bytes] = []

    async def take(line: bytes, _sent_at: float) -> None:
        lines.append(line)

    sent = [b"%d" % n * 50 for n in range(2_000)]
    body = b"".join(line + b"\n" for line in sent)
    server = serve(saying(gzipped(body, "Content-Type: application/x-ndjson")))
    await source.fetch(server.url, {}, 0.0, 4 * MIB, take)
    assert lines == sent


@pytest.fixture(scope="module")
def bomb() -> bytes:
    """96 MiB of nothing, in 400 KiB."""
    packer = zlib.compressobj(1, zlib.DEFLATED, 31)
    zeros = bytes(MIB)
    return b"".join(packer.compress(zeros) for _ in range(96)) + packer.flush()


@pytest.mark.parametrize(
    ("encoding", "kind"),
    [("gzip", "too_large"), ("x-gzip", "too_large"), ("gzip, gzip", "bad_encoding")],
)
async def test_a_bomb_is_refused_before_it_is_unpacked(
    source: HttpSource, serve: Serve, bomb: bytes, encoding: str, kind: str
) -> None:
    """The client's own decoding made 64 MiB of every 64 KiB, and only then looked."""
    server = serve(saying(http(bomb, f"Content-Encoding: {encoding}")))
    assert len(bomb) < MIB
    tracemalloc.start()
    try:
        error = await failure(source, server.url, max_bytes=MIB)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert error.kind == kind
    # The body that may come, what was read at one go, and room for the rest.
    assert peak < 4 * MIB


async def test_a_bomb_in_one_line_is_bounded_as_well(
    source: HttpSource, serve: Serve, bomb: bytes
) -> None:
    headers = ("Content-Encoding: gzip", "Content-Type: application/x-ndjson")
    server = serve(saying(http(bomb, *headers)))

    async def take(_line: bytes, _sent_at: float) -> None:
        pytest.fail("there is no line")

    tracemalloc.start()
    try:
        with pytest.raises(FetchError, match="a line is over") as caught:
            await source.fetch(server.url, {}, 0.0, 512 * MIB, take)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert caught.value.kind == "too_large"
    assert peak < 2 * MAX_LINE_BYTES


async def test_a_body_is_bounded_as_it_comes_and_as_it_is_decoded(
    source: HttpSource, serve: Serve
) -> None:
    # Stored, not packed: larger on its way than decoded.
    blocks = zlib.compressobj(0, zlib.DEFLATED, 31)
    stored = blocks.compress(b"x" * 900) + blocks.flush()
    assert len(stored) > 910
    server = serve(saying(http(stored, "Content-Encoding: gzip")))
    assert (await failure(source, server.url, max_bytes=910)).kind == "too_large"
    assert len((await source.fetch(server.url, {}, 0.0, 1_000)).body) == 900
    server = serve(saying(gzipped(b"x" * 1_001)))
    assert (await failure(source, server.url)).kind == "too_large"


@pytest.mark.parametrize(
    ("answer", "kind"),
    [
        (http(b"{}", "Content-Encoding: br"), "bad_encoding"),
        (http(b"{}", "Content-Encoding: gzip"), "bad_encoding"),
        (http(zlib.compress(b"{}"), "Content-Encoding: deflate"), "bad_encoding"),
        (http(gzip.compress(b"{}") + b"{}", "Content-Encoding: gzip"), "bad_encoding"),
        (
            http(gzip.compress(b"x" * 900)[:-1], "Content-Encoding: gzip"),
            "closed_early",
        ),
    ],
    ids=["br", "not gzip", "deflate", "more behind it", "cut off"],
)
async def test_an_encoding_that_cannot_be_used(
    source: HttpSource, serve: Serve, answer: bytes, kind: str
) -> None:
    assert (await failure(source, serve(saying(answer)).url)).kind == kind


async def test_bytes_behind_the_end_of_a_gzip_that_come_later(
    source: HttpSource, serve: Serve
) -> None:
    packed = gzip.compress(b"{}")
    chunks = b"".join(
        b"%x\r\n%b\r\n" % (len(part), part) for part in (packed, b"more", b"")
    )
    head = b"HTTP/1.1 200 OK\r\nContent-Encoding: gzip\r\nTransfer-Encoding: chunked\r\n\r\n"
    assert (
        await failure(source, serve(saying(head + chunks)).url)
    ).kind == "bad_encoding"


async def test_an_encoding_that_changes_nothing_is_none(
    source: HttpSource, serve: Serve
) -> None:
    server = serve(saying(http(b"{}", "Content-Encoding: identity, ")))
    assert (await source.fetch(server.url, {}, 0.0, 100)).body == b"{}"


# --- refusals
# --------------------------------------------------------------------------


async def test_r59_of_a_refusal_the_first_bytes_are_shown(
    source: HttpSource, serve: Serve
) -> None:
    page = b"<h1>502\x00 Bad Gateway</h1>\r\n\x1b[31m\xff" + "Größe ".encode() * 100
    server = serve(saying(http(page, status="502 Bad Gateway")))
    answer = await source.fetch(f"{server.url}/keys", {}, 0.0, 100)
    error = unexpected(answer, f"{server.url}/keys")
    assert (error.kind, error.status) == ("status", 502)
    assert r"<h1>502\x00 Bad Gateway</h1>\r\n\x1b[31m\xff" in str(error)
    assert len(answer.excerpt.encode()) <= 200
    assert answer.body == b""


async def test_r35_a_page_that_repeats_our_credential_does_not_get_it_into_a_log(
    source: HttpSource, serve: Serve
) -> None:
    """A proxy's page that shows the request it was sent; and tokens of others."""
    secret = "feed token, with blanks: 0123456789"
    jwt = "eyJhbGciOiJSUzI1NiIsInR5cCI6ImF0K2p3dCJ9.eyJzdWIiOiJhbGljZSIsImF1ZCI6ImFwaSJ9.c2lnbmF0dXJlLW9mLXRoZS10b2tlbi1oZXJl"
    page = f"You sent: Authorization: Bearer {secret} and {jwt} {secret[:34]}".encode()
    server = serve(saying(http(page, status="403 Forbidden")))
    headers = {"Authorization": f"Bearer {secret}"}
    answer = await source.fetch(server.url, headers, 0.0, 100)
    assert "You sent: Authorization: Bearer [...] and" in answer.excerpt
    assert secret not in answer.excerpt
    assert not any(part in answer.excerpt for part in jwt.split("."))


async def test_a_page_that_never_ends_is_read_no_further_than_it_is_shown(
    source: HttpSource, serve: Serve
) -> None:
    head = b"HTTP/1.1 500 Oh\r\nContent-Length: 100000000\r\n\r\n"
    server = serve(saying(head, b"a fault. " * 10_000))
    answer = await source.fetch(server.url, {}, 0.0, 100)
    assert answer.excerpt.startswith("a fault. a fault.")
    # What was not read is not taken for the next answer.
    server.answer = saying(http(b"keys"))
    assert (await source.fetch(server.url, {}, 0.0, 100)).body == b"keys"


async def test_a_refusal_that_cannot_be_decoded_is_still_a_refusal(
    source: HttpSource, serve: Serve
) -> None:
    page = http(b"not gzip", "Content-Encoding: gzip", status="500 Oh")
    answer = await source.fetch(serve(saying(page)).url, {}, 0.0, 100)
    assert (answer.status, answer.excerpt) == (500, "")


@pytest.mark.parametrize(
    ("location", "told"),
    [
        ("https://sso.test/login?next=%2Fkeys#top", "to https://sso.test/login"),
        ("https://user:pass@sso.test/", "to https://sso.test/"),
        ("//[broken", "to (a URL that cannot be read)"),
    ],
)
async def test_a_redirect_is_published_with_its_target(
    source: HttpSource, serve: Serve, location: str, told: str
) -> None:
    """R21: nothing follows it. Its query and credentials are not shown."""
    server = serve(saying(http(b"", f"Location: {location}", status="302 Found")))
    answer = await source.fetch(server.url, {}, 0.0, 100)
    error = unexpected(answer, server.url)
    assert (error.kind, error.status) == ("redirect", 302)
    assert str(error).endswith(told)


# --- names and authorities that change
# -------------------------------------------------


@pytest.fixture
async def quick_source(
    ca_file: Path, monkeypatch: pytest.MonkeyPatch
) -> AsyncIterator[HttpSource]:
    """Looks at names and authorities beside every request."""
    monkeypatch.setattr("shared.outgoing.connections.LOOK_EVERY", 0.0)
    source = HttpSource(Authorities("VERIFIER_CA_FILE", str(ca_file)))
    yield source
    await source.close()


async def test_r59_a_new_authority_is_used_without_a_restart(
    quick_source: HttpSource,
    serve: Serve,
    authority: Authority,
    ca_file: Path,
    caplog: pytest.LogCaptureFixture,
) -> None:
    server = serve(saying(http(b"keys")), authority.serve("127.0.0.1"))
    kinds: set[str] = set()

    async def works() -> bool:
        try:
            await quick_source.fetch(server.url, {}, 0.0, 100)
        except FetchError as error:
            kinds.add(error.kind)
            return False
        return True

    assert await works()
    # A bad file leaves the last good one in force.
    ca_file.write_text("half a fi")

    async def is_told() -> bool:
        assert await works()
        return "authorities.refused" in caplog.messages

    await eventually(is_told)
    new = Authority("new")
    ca_file.write_bytes(new.certificate)

    async def is_over() -> bool:
        # The connection there was is not kept: its server is of the old authority.
        return not await works()

    await eventually(is_over)
    server.tls = new.serve("127.0.0.1")
    await eventually(works)
    assert kinds == {"unknown_authority"}


async def test_cookies_of_the_server_are_not_kept(
    source: HttpSource, serve: Serve
) -> None:
    """They would add up, and hold us to one of several backends."""
    server = serve(saying(http(b"", "Set-Cookie: backend=a; Path=/")))
    for _ in range(2):
        await source.fetch(server.url, {}, 0.0, 100)
    assert server.connections == 1
    assert not any(b"cookie" in head.lower() for head in server.requests)
