"""Server-sent events and WebSockets pass, quiet ones too (R64: envoy 3055, authelia
5348).

The shipped time-outs are an hour. A test runs on the same config with every time-out,
and nginx' own defaults, made shorter by the same factor.
"""

from __future__ import annotations

import json
import socket

import pytest

from tests.support.hurried_gateways import be_quiet
from tests.support.raw_http import read_answer, send
from tests.support.stack import GatewayUnderTest, Login, Stack
from tests.support.websockets import RefusedError, websocket

pytestmark = pytest.mark.processes


def read_events(
    gateway: GatewayUnderTest, stack: Stack, token: tuple[str, str], *, quiet: bool
) -> None:
    """Read the first event, release the second, read that."""
    head = (
        "GET /events HTTP/1.1\r\nHost: gateway.test\r\n"
        f"{token[0]}: {token[1]}\r\nAccept: text/event-stream\r\n\r\n"
    )
    with socket.create_connection(("127.0.0.1", gateway.port), 20) as connection:
        connection.sendall(head.encode())
        received = b""
        while b"data: first\n\n" not in received:
            piece = connection.recv(65_536)
            assert piece, received
            received += piece
        if quiet:
            be_quiet()
        send(stack.start_stream_app(), "POST", "/release", [("Content-Length", "0")])
        while b"data: second\n\n" not in received:
            piece = connection.recv(65_536)
            assert piece, received
            received += piece


def test_an_event_arrives_when_it_is_sent(
    streams: GatewayUnderTest, stack: Stack, token: tuple[str, str]
) -> None:
    """R64: by default nginx buffers small pieces until its buffer is full."""
    read_events(streams, stack, token, quiet=False)


def test_a_quiet_event_stream_goes_on(
    hurried: GatewayUnderTest, stack: Stack, token: tuple[str, str]
) -> None:
    """R64: both gateways end it after 60 s, or less, when the config lets them."""
    read_events(hurried, stack, token, quiet=True)


def test_a_websocket_opens_with_the_verified_identity(
    streams: GatewayUnderTest, token: tuple[str, str], session_login: Login
) -> None:
    """R64, R11."""
    forged = ("X-Auth-Subject", "mallory")
    with websocket(streams.port, "/chat?room=1", [token, forged]) as chat:
        headers = json.loads(chat.hear())
        chat.say("hello")
        assert chat.hear() == "hello"
        chat.say("x" * 100_000)
        assert chat.hear() == "x" * 100_000
        chat.close()
    identity = {n: v for n, v in headers.items() if n.startswith("x-auth-")}
    assert identity == streams.seen_identity(session_login.identity)
    assert "authorization" not in headers


def test_a_quiet_websocket_stays_open(
    hurried: GatewayUnderTest, token: tuple[str, str]
) -> None:
    """R64."""
    with websocket(hurried.port, "/chat", [token]) as chat:
        chat.hear()
        be_quiet()
        chat.say("still there?")
        assert chat.hear() == "still there?"


@pytest.mark.parametrize(
    "headers", [[], [("Authorization", "Bearer a.b.c")]], ids=["no token", "garbage"]
)
def test_a_websocket_without_a_good_token_is_refused(
    streams: GatewayUnderTest, headers: list[tuple[str, str]]
) -> None:
    """R64, R13."""
    with pytest.raises(RefusedError) as refused, websocket(streams.port, "/", headers):
        pass
    assert refused.value.status == 401


def test_a_websocket_that_the_application_refuses_opens_no_tunnel(
    streams: GatewayUnderTest, token: tuple[str, str]
) -> None:
    """R64: the bytes after a refused handshake are a request, and are checked."""
    handshake = (
        "GET /closed HTTP/1.1\r\nHost: gateway.test\r\n"
        f"{token[0]}: {token[1]}\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"
        "Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: MDEyMzQ1Njc4OWFiY2RlZg==\r\n\r\n"
    )
    smuggled = "GET /orders HTTP/1.1\r\nHost: gateway.test\r\n\r\n"
    with socket.create_connection(("127.0.0.1", streams.port), 10) as connection:
        connection.sendall(handshake.encode())
        assert read_answer(connection, "GET").status == 403
        connection.sendall(smuggled.encode())
        try:
            rest = connection.recv(65_536)
        except ConnectionResetError:
            rest = b""
    assert not rest or rest.startswith(b"HTTP/1.1 401 ")


@pytest.mark.parametrize("protocol", ["h2c", "TLS/1.0", "websocket2", "h2c, websocket"])
def test_no_other_protocol_is_upgraded_to(
    streams: GatewayUnderTest, token: tuple[str, str], protocol: str
) -> None:
    """R64: after an accepted `Upgrade: h2c`, requests would pass unchecked."""
    settings = ("HTTP2-Settings", "AAMAAABkAARAAAAAAAIAAAAA")
    headers = [
        token,
        ("Connection", "Upgrade, HTTP2-Settings"),
        ("Upgrade", protocol),
        settings,
    ]
    answer = send(streams.port, "GET", "/orders", headers)
    assert answer.status in {200, 400, 403}
    if answer.status == 200:
        seen = answer.json()["headers"]
        assert "upgrade" not in seen
        assert "http2-settings" not in seen
        assert "upgrade" not in seen.get("connection", "").lower()
