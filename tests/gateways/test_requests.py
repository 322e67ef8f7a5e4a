"""The parts of requests and answers that applications need pass unchanged (R64)."""

from __future__ import annotations

import shutil
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from tests.support.plain_app import Connection, plain_app
from tests.support.processes import free_port, wait_until
from tests.support.raw_http import bearer, read_answer, send
from tests.support.stack import GatewayUnderTest, Login, Stack

pytestmark = pytest.mark.processes


# --- an application of one's own, one per gateway ------------------------------------


@pytest.fixture(scope="session")
def plain_port() -> int:
    return free_port()


@pytest.fixture
def before_plain(
    gateway: GatewayUnderTest, stack: Stack, plain_port: int
) -> GatewayUnderTest:
    """The same gateway on the same config, in front of `plain_app`."""
    return stack.start_gateway(gateway.name, "plain", app=plain_port)


# --- the request ---------------------------------------------------------------------


@pytest.mark.parametrize(
    "host", ["shop.test", "shop.test:8443", "[::1]", "[::1]:8443", "127.0.0.1"]
)
def test_the_application_gets_the_clients_host_header(
    gateway: GatewayUnderTest, token: tuple[str, str], host: str
) -> None:
    """R64: without the port, `Origin` and absolute links of an application are
    wrong.
    """
    head = f"GET / HTTP/1.1\r\nHost: {host}\r\n{token[0]}: {token[1]}\r\n\r\n"
    with socket.create_connection(("127.0.0.1", gateway.port), 10) as connection:
        connection.sendall(head.encode())
        seen = read_answer(connection, "GET").json()["headers"]
    assert seen["host"] == host


@pytest.mark.parametrize(
    "target",
    [
        "/",
        "/a/",
        "/a",
        "/a?x=%2F&y=a+b&z=%20",
        "/a%20b/%C3%A9",
        "/a;v=1/b",
        "/verify/nginx",
        "/a?x=http://b//c/../d",
        "/~user/(x)!$&'*+,=:@",
    ],
)
def test_path_and_query_arrive_as_they_were_written(
    gateway: GatewayUnderTest, token: tuple[str, str], target: str
) -> None:
    """R64: nothing is decoded, cut, or put before it."""
    answer = send(gateway.port, "GET", target, [token])
    assert answer.status == 200
    assert answer.json()["path"] == target


@pytest.mark.parametrize(
    "header",
    [
        ("If-None-Match", '"v1"'),
        ("If-Match", "*"),
        ("If-Modified-Since", "Thu, 26 Nov 2026 12:00:00 GMT"),
        ("Range", "bytes=0-1"),
        ("Accept-Encoding", "gzip"),
        ("Cookie", "a=1; b=2"),
        ("Origin", "http://shop.test:8080"),
        ("Access-Control-Request-Method", "PUT"),
    ],
    ids=lambda header: header[0],
)
@pytest.mark.parametrize("method", ["GET", "OPTIONS", "PUT"])
def test_headers_about_the_answer_reach_the_application_alone(
    gateway: GatewayUnderTest,
    token: tuple[str, str],
    method: str,
    header: tuple[str, str],
) -> None:
    """R64: for the verifier a condition or a range would be another question."""
    length = [("Content-Length", "0")] if method == "PUT" else []
    answer = send(gateway.port, method, "/", [token, header, *length])
    assert answer.status == 200
    assert answer.json()["headers"][header[0].lower()] == header[1]


def test_a_long_url_long_cookies_and_the_longest_token_fit_together(
    gateway: GatewayUnderTest, stack: Stack, session_login: Login
) -> None:
    """R64: a token of 8,000 bytes is refused as a token, not as too long a header."""
    padded = session_login.access_token
    target = "/?q=" + "x" * 7_000
    cookie = ("Cookie", "c=" + "x" * 8_000)
    others = [(f"X-Other-{number}", "x" * 1_000) for number in range(8)]
    headers = [bearer(padded), cookie, *others]
    answer = send(gateway.port, "GET", target, headers)
    assert answer.status == 200
    assert len(answer.json()["headers"]["cookie"]) == 8_002
    too_long = bearer("a" * 7_993)
    answer = send(gateway.port, "GET", target, [too_long, cookie, *others])
    assert answer.status == 401


def test_a_url_that_is_too_long_is_the_clients_fault(
    gateway: GatewayUnderTest, token: tuple[str, str]
) -> None:
    """R64: never 503, which clients would retry."""
    answer = send(gateway.port, "GET", "/?q=" + "x" * 20_000, [token])
    assert answer.status in {414, 431}


@pytest.mark.parametrize("host", ["Host: shop.test\r\n", ""], ids=["Host", "no Host"])
def test_a_client_of_http_1_0_is_served(
    gateway: GatewayUnderTest, token: tuple[str, str], host: str
) -> None:
    """R64: load balancers in front of a gateway speak it; Envoy answers 426 by
    itself.
    """
    head = f"GET /old HTTP/1.0\r\n{host}{token[0]}: {token[1]}\r\n\r\n"
    with socket.create_connection(("127.0.0.1", gateway.port), 10) as connection:
        connection.sendall(head.encode())
        answer = read_answer(connection, "GET")
    assert answer.status == 200
    assert answer.json()["path"] == "/old"
    assert answer.json()["headers"].get("host", "localhost") in {
        "shop.test",
        "localhost",
    }


def test_a_connection_serves_many_requests(
    gateway: GatewayUnderTest, token: tuple[str, str]
) -> None:
    """R64: allowed ones and refused ones in turn."""
    good = f"GET / HTTP/1.1\r\nHost: a.test\r\n{token[0]}: {token[1]}\r\n\r\n".encode()
    bad = b"POST / HTTP/1.1\r\nHost: a.test\r\nContent-Length: 2\r\n\r\nhi"
    with socket.create_connection(("127.0.0.1", gateway.port), 10) as connection:
        for request, method, status in [(good, "GET", 200), (bad, "POST", 401)] * 3:
            connection.sendall(request)
            assert read_answer(connection, method).status == status


def test_a_request_is_not_held_back(
    gateway: GatewayUnderTest, token: tuple[str, str]
) -> None:
    """R64: HAProxy 2.6 let the kernel wait 200 ms for more of each request."""
    seconds = []
    for _ in range(20):
        begin = time.monotonic()
        assert send(gateway.port, "GET", "/", [token]).status == 200
        seconds.append(time.monotonic() - begin)
    # The fastest: on a busy machine others take longer.
    assert min(seconds) < 0.1


# --- the answer ----------------------------------------------------------------------


ANSWERS = {
    "not modified": b'HTTP/1.1 304 Not Modified\r\nETag: "v1"\r\n\r\n',
    "partial": (
        b"HTTP/1.1 206 Partial Content\r\nContent-Range: bytes 0-1/5\r\n"
        b"Content-Length: 2\r\n\r\nhe"
    ),
    "no content": b"HTTP/1.1 204 No Content\r\n\r\n",
    "a challenge of its own": (
        b'HTTP/1.1 401 Unauthorized\r\nWWW-Authenticate: Basic realm="app"\r\n'
        b"Content-Length: 2\r\n\r\nno"
    ),
    "forbidden by the application": (
        b"HTTP/1.1 403 Forbidden\r\nContent-Length: 4\r\n\r\nmine"
    ),
    "an error of its own": (
        b"HTTP/1.1 500 Internal Server Error\r\nContent-Length: 4\r\n\r\noops"
    ),
    "away by itself": (
        b"HTTP/1.1 503 Service Unavailable\r\nRetry-After: 77\r\n"
        b"Content-Length: 4\r\n\r\nbusy"
    ),
    "a redirect": (
        b"HTTP/1.1 302 Found\r\nLocation: http://shop.test:8443/next\r\n"
        b"Content-Length: 0\r\n\r\n"
    ),
}


@pytest.mark.parametrize("title", ANSWERS)
def test_the_applications_answer_reaches_the_client(
    before_plain: GatewayUnderTest,
    plain_port: int,
    token: tuple[str, str],
    title: str,
) -> None:
    """R64: an error of the application is not replaced by one of the gateway."""
    raw = ANSWERS[title]
    head, _, body = raw.partition(b"\r\n\r\n")
    with plain_app(plain_port, lambda connection: connection.write(raw)):
        answer = send(before_plain.port, "GET", "/", [token])
    assert answer.status == int(head.split()[1])
    assert answer.body == body
    for line in head.decode().split("\r\n")[1:]:
        name, _, value = line.partition(": ")
        if name != "Content-Length":
            assert answer.header(name) == value


def receive_until(connection: socket.socket, received: bytes, wanted: bytes) -> bytes:
    """Return all that was received, once this is in it."""
    while wanted not in received:
        piece = connection.recv(65_536)
        assert piece, received
        received += piece
    return received


def test_events_that_end_with_the_connection_arrive_when_they_are_sent(
    before_plain: GatewayUnderTest, plain_port: int, token: tuple[str, str]
) -> None:
    """R64: an answer without length or chunks, as CGI and Flask's own server give."""
    is_read = threading.Event()

    def send_events(connection: Connection) -> None:
        connection.write(
            b"HTTP/1.0 200 OK\r\nContent-Type: text/event-stream\r\n\r\ndata: 1\n\n"
        )
        assert is_read.wait(20)
        connection.write(b"data: 2\n\n")

    head = f"GET / HTTP/1.1\r\nHost: a.test\r\n{token[0]}: {token[1]}\r\n\r\n"
    with (
        plain_app(plain_port, send_events),
        socket.create_connection(("127.0.0.1", before_plain.port), 10) as connection,
    ):
        connection.sendall(head.encode())
        try:
            received = receive_until(connection, b"", b"data: 1")
        finally:
            is_read.set()
        receive_until(connection, received, b"data: 2")


def test_the_gateway_closes_idle_connections_before_the_application_does(
    before_plain: GatewayUnderTest, plain_port: int, token: tuple[str, str]
) -> None:
    """R64: else a POST is lost now and then on a connection that is just being
    closed.
    """
    closed: list[bool] = []

    def answer(connection: Connection) -> None:
        connection.write(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")
        connection.wait_for_close()
        closed.append(True)

    with plain_app(plain_port, answer):
        assert send(before_plain.port, "GET", "/", [token]).status == 200
        wait_until(lambda: closed, deadline=20, what="the idle connection closed")


# --- HTTP/2 --------------------------------------------------------------------------


def make_certificate(folder: Path) -> tuple[Path, Path]:
    """Return the files of a key and a certificate of its own."""
    key, certificate = folder / "key.pem", folder / "certificate.pem"
    subprocess.run(
        [
            *("openssl", "req", "-x509", "-newkey", "ec", "-nodes", "-days", "2"),
            *("-pkeyopt", "ec_paramgen_curve:P-256", "-subj", "/CN=gateway.test"),
            *("-keyout", str(key), "-out", str(certificate)),
        ],
        check=True,
        capture_output=True,
    )
    return key, certificate


@pytest.fixture
def http2(
    gateway: GatewayUnderTest, stack: Stack, tmp_path_factory: pytest.TempPathFactory
) -> tuple[str, list[str]]:
    """A gateway's URL for HTTP/2, and the options that make curl speak it."""
    if shutil.which("curl") is None:
        pytest.fail("curl is needed (apt-get install curl)")
    app = stack.start_stream_app()
    serve_tls = gateway.kind.serve_tls
    if serve_tls is None:
        running = stack.start_gateway(gateway.name, "streams", app=app)
        return f"http://127.0.0.1:{running.port}", ["--http2-prior-knowledge"]
    key, certificate = make_certificate(tmp_path_factory.mktemp("tls"))
    running = stack.start_gateway(
        gateway.name,
        "http2",
        app=app,
        edit=lambda folder: serve_tls(folder, key, certificate),
        has_tls=True,
    )
    return f"https://127.0.0.1:{running.port}", ["--http2", "--insecure"]


def curl(url: str, *options: str, data: bytes = b"") -> tuple[str, bytes]:
    """Return version and status, and the body."""
    done = subprocess.run(
        ["curl", "-sS", *options, "-w", "\n%{http_version} %{http_code}", url],
        input=data,
        capture_output=True,
        check=True,
        timeout=60,
    )
    body, _, outcome = done.stdout.rpartition(b"\n")
    return outcome.decode(), body


def test_http_2_clients_are_served(
    http2: tuple[str, list[str]], token: tuple[str, str]
) -> None:
    """R64: with a large body in each direction."""
    base, options = http2
    options = [*options, "-H", f"{token[0]}: {token[1]}"]
    outcome, body = curl(f"{base}/orders", *options)
    assert outcome == "2 200"
    assert b'"x-auth-subject"' in body
    large = b"x" * (3 << 20)
    outcome, body = curl(f"{base}/upload", *options, "--data-binary", "@-", data=large)
    assert outcome == "2 200"
    assert b'"bytes": 3145728' in body
    outcome, body = curl(f"{base}/download?bytes=3145728", *options)
    assert (outcome, len(body)) == ("2 200", 3 << 20)


def test_http_2_clients_without_token_are_refused(
    http2: tuple[str, list[str]],
) -> None:
    """R64, R2."""
    base, options = http2
    assert curl(f"{base}/orders", *options)[0] == "2 401"
    forged = ["-H", "X-Auth-Subject: mallory", "-H", "Authorization: Bearer a.b.c"]
    assert curl(f"{base}/orders", *options, *forged)[0] == "2 401"


#: Debian's curl drops an answer that is followed by RST_STREAM, which ends a request
#: whose body is not wanted; RFC 9113, section 8.1, forbids clients to do so.
_UPLOAD = """
const http2 = require('node:http2');
const client = http2.connect(process.argv[1], { rejectUnauthorized: false });
const request = client.request({ ':method': 'POST', ':path': '/upload' });
request.on('response', (headers) => console.log(headers[':status']));
// Not the event 'close': over TLS, Node.js 24 now and then lacks it after NO_ERROR.
const look = setInterval(() => {
  if (!request.closed) return;
  clearInterval(look);
  console.log(request.rstCode);
  client.destroy();
}, 10);
setTimeout(() => { console.log('still open'); process.exit(); }, 5000).unref();
request.resume();
request.end(Buffer.alloc(2 << 20));
"""

#: Of RFC 9113, section 7.
_NO_ERROR, _CANCEL = "0", "8"


def test_an_http_2_upload_without_token_is_refused_before_its_end(
    http2: tuple[str, list[str]], gateway: GatewayUnderTest
) -> None:
    """R64: with a status, and no error of the protocol (RFC 9113, section 8.1)."""
    node = Path(sys.executable).parent / "node"
    done = subprocess.run(
        [str(node), "-e", _UPLOAD, http2[0]],
        capture_output=True,
        text=True,
        check=True,
        timeout=60,
    )
    status, _, ending = done.stdout.partition("\n")
    assert status == "401"
    code = _CANCEL if gateway.kind.cancels_unread_uploads else _NO_ERROR
    if not gateway.kind.leaves_refused_uploads_open:
        assert ending == f"{code}\n"
