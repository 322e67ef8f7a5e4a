"""Large and slow bodies pass in both directions (R64: ingress-nginx 811)."""

from __future__ import annotations

import hashlib
import select
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.processes import wait_until
from tests.support.raw_http import RawAnswer, read_answer, send
from tests.support.stack import GatewayUnderTest, Stack
from tests.support.stream_app import made_bytes

pytestmark = pytest.mark.processes

MIB = 1 << 20
LARGE = made_bytes(20 * MIB)
LARGE_DIGEST = hashlib.sha256(LARGE).hexdigest()


def in_chunks(body: bytes, size: int = 65_536) -> Iterator[bytes]:
    for start in range(0, len(body), size):
        piece = body[start : start + size]
        yield b"%x\r\n%b\r\n" % (len(piece), piece)
    yield b"0\r\n\r\n"


def send_until_answered(connection: socket.socket) -> None:
    """Send a few bytes again and again, as a client does that has more to send."""
    for _ in range(100):
        if select.select([connection], [], [], 0.1)[0]:
            return
        connection.sendall(b"x")


def digest_seen(answer: RawAnswer) -> str:
    assert answer.status == 200, answer
    return str(answer.json()["sha256"])


def test_upload_of_20_mib_arrives_whole(
    streams: GatewayUnderTest, token: tuple[str, str]
) -> None:
    """R64: nginx's default limit is 1 MiB, also in the location of the check."""
    length = ("Content-Length", str(len(LARGE)))
    answer = send(streams.port, "POST", "/upload", [token, length], LARGE)
    assert digest_seen(answer) == LARGE_DIGEST


def limit_bodies(folder: Path) -> None:
    """A limit for all, and a wider one for the application's location."""
    config = folder / "gatehouse.conf"
    text = config.read_text()
    for written, limited in (
        ("    client_max_body_size    0;", "    client_max_body_size    1m;"),
        ("    location / {", "    location / {\n        client_max_body_size 3m;"),
    ):
        assert text.count(written) == 1
        text = text.replace(written, limited)
    config.write_text(text)


def test_limit_of_the_application_location_is_the_one_that_counts(
    stack: Stack, token: tuple[str, str]
) -> None:
    """R64: the check of a request with a larger body than the server's limit was
    503.
    """
    nginx = stack.start_gateway(
        "nginx", "limited", app=stack.start_stream_app(), edit=limit_bodies
    )
    for size, status in ((2 * MIB, 200), (4 * MIB, 413)):
        length = ("Content-Length", str(size))
        answer = send(nginx.port, "POST", "/upload", [token, length], LARGE[:size])
        assert answer.status == status


def test_upload_of_20_mib_in_chunks_arrives_whole(
    streams: GatewayUnderTest, token: tuple[str, str]
) -> None:
    """R64."""
    body = b"".join(in_chunks(LARGE))
    chunked = ("Transfer-Encoding", "chunked")
    answer = send(streams.port, "POST", "/upload", [token, chunked], body)
    assert digest_seen(answer) == LARGE_DIGEST


def test_upload_reaches_the_application_while_it_is_sent(
    streams: GatewayUnderTest, token: tuple[str, str], stack: Stack
) -> None:
    """R64: the gateway does not buffer the body until its last byte."""
    app = stack.start_stream_app()
    head = (
        "POST /upload HTTP/1.1\r\nHost: gateway.test\r\n"
        f"{token[0]}: {token[1]}\r\nTransfer-Encoding: chunked\r\n\r\n"
    )
    with socket.create_connection(("127.0.0.1", streams.port), 10) as connection:
        connection.sendall(head.encode() + b"5\r\nfirst\r\n")
        wait_until(
            lambda: send(app, "GET", "/received").json() == {"bytes": 5},
            what="the first piece at the application",
        )
        connection.sendall(b"6\r\nsecond\r\n0\r\n\r\n")
        answer = read_answer(connection, "POST")
    assert digest_seen(answer) == hashlib.sha256(b"firstsecond").hexdigest()


def test_large_upload_without_token_is_refused_as_any_request(
    streams: GatewayUnderTest,
) -> None:
    """R64: neither as too large (413) nor as unavailable (503)."""
    length = ("Content-Length", str(2 * MIB))
    answer = send(streams.port, "POST", "/upload", [length], LARGE[: 2 * MIB])
    assert answer.status == 401


def test_client_that_expects_100_continue_gets_it(
    streams: GatewayUnderTest, token: tuple[str, str]
) -> None:
    """RFC 9110, section 10.1.1: curl and Java send it before a large body."""
    head = (
        "POST /upload HTTP/1.1\r\nHost: gateway.test\r\n"
        f"{token[0]}: {token[1]}\r\nContent-Length: 5\r\nExpect: 100-continue\r\n\r\n"
    )
    with socket.create_connection(("127.0.0.1", streams.port), 10) as connection:
        connection.sendall(head.encode())
        interim = connection.recv(1_024)
        assert interim.startswith(b"HTTP/1.1 100 "), interim
        connection.sendall(b"hello")
        answer = read_answer(connection, "POST")
    assert digest_seen(answer) == hashlib.sha256(b"hello").hexdigest()


@pytest.mark.parametrize("framing", ["", "&chunked"], ids=["length", "chunked"])
def test_download_of_20_mib_arrives_whole(
    streams: GatewayUnderTest, token: tuple[str, str], framing: str
) -> None:
    """R64."""
    target = f"/download?bytes={len(LARGE)}{framing}"
    answer = send(streams.port, "GET", target, [token])
    assert answer.status == 200
    assert answer.body == LARGE


def test_answer_with_a_long_head_passes(
    streams: GatewayUnderTest, token: tuple[str, str]
) -> None:
    """R64: nginx's default buffer is 4 or 8 KiB; cookies and policies need more."""
    answer = send(streams.port, "GET", "/long-head", [token])
    assert answer.status == 200
    assert len([1 for name, _ in answer.headers if name == "set-cookie"]) == 8


def test_early_refusal_of_the_application_reaches_the_client(
    streams: GatewayUnderTest, token: tuple[str, str]
) -> None:
    """R64: a 413 of an application that reads no body does not become a 502."""
    is_whole = streams.kind.waits_for_uploads
    head = (
        "POST /early HTTP/1.1\r\nHost: gateway.test\r\n"
        f"{token[0]}: {token[1]}\r\nContent-Length: 1000000\r\n\r\n"
    )
    with socket.create_connection(("127.0.0.1", streams.port), 10) as connection:
        connection.sendall(head.encode() + b"x" * (1_000_000 if is_whole else 100))
        if streams.kind.holds_early_answers:
            send_until_answered(connection)
        status = read_answer(connection, "POST").status
    assert status == 413 or (is_whole and status == 502)
