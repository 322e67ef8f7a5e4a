"""Raw bytes in, answers out: the same on the fast path and behind plain ASGI.

Each case is sent whole, cut in two at every place that matters, and byte by byte.
"""

from __future__ import annotations

import contextlib
import logging
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from tests.support.clock import FakeClock
from tests.support.decision_ids import without_ids
from tests.support.gatehouse_verifier import TOKEN_POLICY, SimulatedVerifier
from tests.support.issuer_simulator import IssuerSimulator
from tests.support.served_wire import CLOSE, Wire, a_check, statuses_of
from tests.support.verifier_server import EDGES, serving
from verifier.check.answers import IDENTITY_HEADERS
from verifier.check.policy import PolicyBook
from verifier.check.refusal_log import RefusalLog
from verifier.policies.document import parse_policies


@pytest.fixture(params=EDGES)
async def wire(request: pytest.FixtureRequest) -> AsyncIterator[Wire]:
    clock = FakeClock()
    issuer = IssuerSimulator(clock)
    verifier = SimulatedVerifier(clock, issuer)
    await verifier.sync()
    async with serving(verifier, request.param) as server:
        yield Wire(server, verifier, issuer.mint())


async def test_a_good_token_passes_with_every_identity_header_once(wire: Wire) -> None:
    """R10: exactly 200, no body, every identity header exactly once."""
    answer = await wire.server.talk(a_check(wire.token, CLOSE))
    head, _, body = answer.partition(b"\r\n\r\n")
    lines = head.lower().split(b"\r\n")
    assert lines[0] == b"http/1.1 200 ok"
    assert body == b""
    assert lines.count(b"content-length: 0") == 1
    for name in IDENTITY_HEADERS:
        assert sum(line.startswith(name.lower() + b":") for line in lines) == 1, name


@pytest.mark.parametrize("size", [1, 2, 7, 100], ids=lambda size: f"pieces-of-{size}")
async def test_split_reads_change_nothing(wire: Wire, size: int) -> None:
    request = a_check(wire.token, CLOSE)
    pieces = [request[at : at + size] for at in range(0, len(request), size)]
    assert await wire.statuses(*pieces) == [200]


async def test_coalesced_requests_are_answered_in_order(wire: Wire) -> None:
    """Pipelining: checks and other paths mixed keep their order."""
    requests = [
        a_check(wire.token),
        a_check(None),
        a_check(None, start=b"GET /elsewhere"),
        a_check(wire.token),
        a_check(None, start=b"GET /verify/unknown"),
        a_check(wire.token, CLOSE),
    ]
    assert await wire.statuses(b"".join(requests)) == [200, 401, 404, 200, 503, 200]


async def test_a_hundred_requests_on_one_connection(wire: Wire) -> None:
    requests = [a_check(wire.token)] * 99 + [a_check(wire.token, CLOSE)]
    assert await wire.statuses(*requests) == [200] * 100


@pytest.mark.parametrize(
    "method", [b"HEAD", b"POST", b"PUT", b"DELETE", b"OPTIONS", b"PATCH", b"PROPFIND"]
)
async def test_any_method_is_answered(wire: Wire, method: bytes) -> None:
    start = method + b" /verify/nginx"
    assert await wire.statuses(a_check(wire.token, CLOSE, start=start)) == [200]


async def test_head_gets_no_body_and_the_next_answer_is_not_garbled(wire: Wire) -> None:
    requests = a_check(None, start=b"HEAD /verify/caddy") + a_check(wire.token, CLOSE)
    answers = await wire.server.talk(requests)
    assert statuses_of(answers) == [401, 200]
    assert b"about:blank" not in answers


async def test_an_announced_body_is_not_waited_for(wire: Wire) -> None:
    """nginx announces the client's Content-Length and never sends the body."""
    reader, writer = await wire.server.connect()
    writer.write(a_check(wire.token, b"Content-Length: 7"))
    assert (await reader.readuntil(b"\r\n\r\n")).startswith(b"HTTP/1.1 200")
    writer.close()


@pytest.mark.parametrize(
    ("line", "body"),
    [
        (b"Content-Length: 7", b"GET /xx"),
        (b"Transfer-Encoding: chunked", b"3\r\nabc\r\n0\r\n\r\n"),
        (b"Expect: 100-continue", b""),
        (b"Trailer: X", b""),
    ],
    ids=["length", "chunked", "expect", "trailer"],
)
async def test_a_check_that_may_have_a_body_is_the_last(
    line: bytes, body: bytes
) -> None:
    """R45 on the public port; oauth2_proxy 442: else the body is the next check."""
    clock = FakeClock()
    issuer = IssuerSimulator(clock)
    verifier = SimulatedVerifier(clock, issuer)
    await verifier.sync()
    async with serving(verifier, "fast") as server:
        answer = await server.talk(
            a_check(issuer.mint(), line) + body + a_check(None, CLOSE)
        )
    assert statuses_of(answer) == [200]
    assert b"\r\nConnection: close\r\n\r\n" in answer


@pytest.mark.parametrize(
    "line",
    [
        b"Expect: 100-continue",
        b"Upgrade: websocket\r\nConnection: Upgrade",
        b"Upgrade: h2c\r\nConnection: Upgrade, HTTP2-Settings\r\nHTTP2-Settings: AAMAAABk",
        b'If-None-Match: "x"',
        b"Range: bytes=0-1",
        b"Accept-Encoding: gzip, br",
        b"X-Bin: \xff\xfe",
    ],
    ids=["expect", "websocket", "h2c", "if-none-match", "range", "encoding", "binary"],
)
async def test_forwarded_headers_that_could_change_the_status_are_ignored(
    wire: Wire, line: bytes
) -> None:
    """gateways.md, section 0.8: never 100 alone, 101, 206 or 304."""
    assert await wire.statuses(a_check(wire.token, line), answers=1) == [200]


async def test_the_request_behind_an_upgrade_is_answered() -> None:
    """On the fast path; uvicorn's own protocol drops the bytes after an upgrade."""
    clock = FakeClock()
    issuer = IssuerSimulator(clock)
    verifier = SimulatedVerifier(clock, issuer)
    await verifier.sync()
    upgrade = a_check(issuer.mint(), b"Upgrade: websocket", b"Connection: Upgrade")
    async with serving(verifier, "fast") as server:
        together = await server.talk(upgrade + a_check(None, CLOSE))
        apart = await server.talk(upgrade, a_check(None, CLOSE))
    assert statuses_of(together) == statuses_of(apart) == [200, 401]


async def test_http_1_0_is_answered_and_closed(wire: Wire) -> None:
    request = b"GET /verify/nginx HTTP/1.0\r\nAuthorization: Bearer " + wire.token
    answer = await wire.server.talk(request + b"\r\n\r\n")
    assert statuses_of(answer) == [200]
    assert b"connection: close" in answer.lower()


async def test_connection_close_closes(wire: Wire) -> None:
    answer = await wire.server.talk(a_check(wire.token, CLOSE))
    assert statuses_of(answer) == [200]
    assert b"connection: close" in answer.lower()


async def test_nothing_behind_a_close_is_answered(wire: Wire) -> None:
    requests = a_check(wire.token, CLOSE) + a_check(wire.token)
    assert await wire.statuses(requests) == [200]


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ([b"Authorization: Bearer a.b.c", b"Authorization: Bearer a.b.c"], 401),
        ([b"Authorization: Basic YTpi"], 401),
        ([b"Authorization:"], 401),
        ([b"X-Original-URI: /a", b"X-Original-URI: /b"], 401),
        ([b"X-Original-URI: /a", b"X_Original_URI: /b"], 401),
        ([b"User-Agent: kube-probe/1.0"], 401),
        ([b"X-Auth-Subject: evil"], 401),
    ],
    ids=["two", "basic", "empty", "uri-twice", "alias", "user-agent", "identity"],
)
async def test_no_header_lets_a_request_pass(
    wire: Wire, headers: list[bytes], status: int
) -> None:
    """R4, R6, R13 over the wire."""
    assert await wire.statuses(a_check(None, *headers, CLOSE)) == [status]


@pytest.mark.parametrize(
    "target",
    [
        b"/verify/nginx?x=1&y=%20z",
        b"/verify/caddy?p=/p/lax",
        b"/verify/envoy/a/b?x=1",
        b"/verify//nginx",
        b"/verify/nginx/",
        b"/verify/%6eginx",
        b"/Verify/nginx",
        b"/verify/nginx/../nginx",
        b"/verify",
        b"/verify/",
        b"*",
    ],
)
async def test_both_edges_read_a_target_alike(target: bytes) -> None:
    clock = FakeClock()
    issuer = IssuerSimulator(clock)
    verifier = SimulatedVerifier(clock, issuer)
    await verifier.sync()
    request = a_check(issuer.mint(), CLOSE, start=b"GET " + target)
    answers = []
    for edge_name in EDGES:
        async with serving(verifier, edge_name) as server:
            answers.append(without_ids((await server.talk(request)).lower()))
    assert answers[0] == answers[1]


@pytest.mark.parametrize(
    ("target", "status"),
    [(b"/verify/nginx#fragment", 400), (b"http://verifier/verify/nginx", 404)],
    ids=["fragment", "absolute"],
)
async def test_the_public_port_reads_no_target_as_another(
    target: bytes, status: int
) -> None:
    """R44; an application sees neither: its server cuts the target before."""
    clock = FakeClock()
    issuer = IssuerSimulator(clock)
    verifier = SimulatedVerifier(clock, issuer)
    await verifier.sync()
    request = a_check(issuer.mint(), CLOSE, start=b"GET " + target)
    async with serving(verifier, "fast") as server:
        assert statuses_of(await server.talk(request)) == [status]


BAD = {
    "not-http": b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
    "no-version": b"GET /verify/nginx\r\n\r\n",
    "bad-header": b"GET /verify/nginx HTTP/1.1\r\nBad Header: x\r\n\r\n",
    "two-lengths": (
        b"POST /verify/nginx HTTP/1.1\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\n"
    ),
    "length-and-chunked": (
        b"POST /verify/nginx HTTP/1.1\r\nContent-Length: 1\r\n"
        b"Transfer-Encoding: chunked\r\n\r\n0\r\n\r\n"
    ),
    "nul": b"GET /verify/nginx HTTP/1.1\r\nX: \x00\r\n\r\n",
    "bare-lf": b"GET /verify/nginx HTTP/1.1\nHost: a\n\n",
    "lone-cr": b"GET /verify/nginx HTTP/1.1\r\nX: a\rb\r\n\r\n",
}


@pytest.mark.parametrize("request_bytes", BAD.values(), ids=BAD)
async def test_bytes_that_are_not_http_are_400_or_refused(
    wire: Wire, request_bytes: bytes
) -> None:
    statuses = await wire.statuses(request_bytes)
    assert statuses
    assert set(statuses) <= {400, 401, 503, 505}


async def test_an_untrusted_peer_is_refused(
    request: pytest.FixtureRequest,
) -> None:
    """R1, R2, R43: straight at the port, with a good token and forwarded headers.

    The public port closes at accept; an application can only refuse.
    """
    clock = FakeClock()
    issuer = IssuerSimulator(clock)
    verifier = SimulatedVerifier(clock, issuer)
    await verifier.sync()
    line = b"X-Original-URI: /admin"
    check = a_check(issuer.mint(), line, CLOSE)
    async with serving(verifier, "asgi", trusted_peers=("10.0.0.0/8",)) as server:
        assert statuses_of(await server.talk(check)) == [503]
    async with serving(verifier, "fast", trusted_peers=("10.0.0.0/8",)) as server:
        with contextlib.suppress(ConnectionResetError):
            assert await server.talk(check) == b""
        assert server.port.admission.refused["untrusted"] == 1
        assert not server.port.connections


@pytest.mark.parametrize("edge_name", EDGES)
async def test_a_unix_socket_serves_and_is_trusted(
    edge_name: str, tmp_path: Path
) -> None:
    clock = FakeClock()
    issuer = IssuerSimulator(clock)
    verifier = SimulatedVerifier(clock, issuer)
    await verifier.sync()
    path = tmp_path / "verifier.sock"
    async with serving(verifier, edge_name, unix_path=path) as server:
        answer = await server.talk(a_check(issuer.mint(), CLOSE))
    assert statuses_of(answer) == [200]


async def test_a_refusal_has_its_line_with_the_request_id(
    caplog: pytest.LogCaptureFixture,
    wire: Wire,
) -> None:
    """R35: on both edges the line is the one that the gate makes."""
    caplog.set_level(logging.INFO)
    wire.verifier.gate.refusals = RefusalLog(1, wire.verifier.trust, 0.0)
    ids = (b"X-Request-ID: r-1", b"TraceParent: 00-" + b"a1" * 16 + b"-" + b"b2" * 8)
    expired = wire.verifier.issuer.mint(iat=1, exp=2)
    refused = a_check(expired, *ids, CLOSE)
    allowed = a_check(wire.token, *ids)
    assert await wire.statuses(allowed, refused) == [200, 401]
    (record,) = [r for r in caplog.records if r.getMessage() == "gate.refused"]
    fields = vars(record)["fields"]
    assert len(fields.pop("decision_id")) == 16
    assert fields == {
        "reason": "expired",
        "policy": "default",
        "dialect": "nginx",
        "request_id": "r-1",
        "issuer": "own",
        "kid": wire.verifier.issuer.keys[0].kid,
    }


async def test_an_open_connection_follows_new_policies(wire: Wire) -> None:
    """R65: a gateway keeps its connections for hours; none may ask the old policies."""
    verifier, check = wire.verifier, a_check(wire.token)
    late = a_check(wire.token, start=b"GET /verify/nginx/p/late")
    reader, writer = await wire.server.connect()
    seen = []
    strict = '[policies.default]\nrequired_scopes = ["admin"]\n[policies.late]'
    for text in ("", strict, ""):
        verifier.gate.adopt(PolicyBook(parse_policies(text, TOKEN_POLICY)))
        for request in (check, late):
            writer.write(request)
            seen += statuses_of(await reader.readuntil(b"\r\n\r\n"))
    writer.close()
    assert seen == [200, 503, 403, 200, 200, 503]
