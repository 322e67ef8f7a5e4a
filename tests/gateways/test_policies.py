"""Policies decide by the method and path of the client's real request."""

from __future__ import annotations

import socket
from collections.abc import Iterator

import pytest

from tests.support.raw_http import bearer, read_answer, send
from tests.support.stack import GatewayUnderTest, Login, Stack

pytestmark = pytest.mark.processes

POLICY_FILE = """\
[policies.default]
[[policies.default.rules]]
path = "/open/**"
methods = ["GET", "HEAD"]
[[policies.default.rules]]
path = "/closed/**"
required_scopes = ["nobody:has-this"]
[[policies.default.rules]]
path = "/assets/**"
public = true
[[policies.default.rules]]
path = "/maybe"
optional = true
[[policies.default.rules]]
path = "/by-host"
hosts = ["open.example.com", "*.pub.example.com"]
public = true
"""
SPOOFED = [
    ("X-Auth-User", "root"),
    ("X-Auth-Subject", "root"),
    ("X-Auth-Roles", "admin"),
    ("X-Auth-Decision", "allow"),
]


@pytest.fixture(scope="module")
def with_policies(stack: Stack) -> Iterator[None]:
    path = stack.installation.var / "policies.toml"
    path.write_text(POLICY_FILE)
    with stack.verifier_replaced(VERIFIER_POLICY_FILE=str(path)):
        yield


@pytest.mark.usefixtures("with_policies")
@pytest.mark.parametrize(
    ("method", "target", "statuses"),
    [
        ("GET", "/open/door", {200}),
        ("HEAD", "/open/door?why=not", {200}),
        ("POST", "/open/door", {403}),
        ("GET", "/closed/door", {403}),
        ("GET", "/elsewhere", {403}),
        ("GET", "/%6fpen/door", {200, 400, 401, 403}),
    ],
)
def test_policy_decides_on_the_clients_method_and_path(
    gateway: GatewayUnderTest,
    session_login: Login,
    method: str,
    target: str,
    statuses: set[int],
) -> None:
    token = bearer(session_login.access_token)
    answer = send(gateway.port, method, target, [token])

    assert answer.status in statuses
    if answer.status == 403:
        challenge = answer.header("WWW-Authenticate") or ""
        assert 'error="insufficient_scope"' in challenge


@pytest.mark.usefixtures("with_policies")
@pytest.mark.parametrize(
    "target",
    [
        "/open/../closed/door",
        "/open/%2e%2e/closed/door",
        "/open/..%2fclosed/door",
        "/open/..%5cclosed/door",
        "/open\\..\\closed/door",
        "/open/..;/closed/door",
        "//closed/door",
        "/%63losed/door",
        "/open/%00/../closed/door",
        "http://elsewhere/closed/door",
        "/closed/door?x=/open/door",
        "/closed/door#/open/door",
    ],
)
def test_no_spelling_of_a_closed_path_passes(
    gateway: GatewayUnderTest, session_login: Login, target: str
) -> None:
    """R7, R8: a path with two readings is refused, not guessed at."""
    token = bearer(session_login.access_token)
    answer = send(gateway.port, "GET", target, [token])

    if answer.status == 200:
        # It passed as something under /open: then that is what the application got.
        path = answer.json()["path"]
        assert path.startswith("/open/")
        # Where a gateway resolves the dots itself, the rest is a name below /open.
        is_resolved = gateway.kind.writes_canonical_paths and ".." not in path
        assert "closed" not in path or (is_resolved and "%" not in path)
    else:
        assert answer.status in {400, 401, 403}


@pytest.mark.usefixtures("with_policies")
@pytest.mark.parametrize(
    "lie",
    [
        ("X-Original-URI", "/open/door"),
        ("X-Original-URL", "/open/door"),
        ("X-Forwarded-Uri", "/open/door"),
        ("X-Rewrite-URL", "/open/door"),
        ("X-Envoy-Original-Path", "/open/door"),
    ],
    ids=lambda lie: lie[0],
)
def test_no_header_changes_the_path_that_is_checked(
    gateway: GatewayUnderTest, session_login: Login, lie: tuple[str, str]
) -> None:
    """R3: headers of the client cannot change the method and path of the decision."""
    token = bearer(session_login.access_token)
    answer = send(gateway.port, "GET", "/closed/door", [token, lie])
    assert answer.status in {401, 403}


@pytest.mark.usefixtures("with_policies")
def test_public_path_passes_without_an_identity(
    gateway: GatewayUnderTest, session_login: Login
) -> None:
    """R61: with no token, a bad one or a good one the application sees no identity."""
    good = bearer(session_login.access_token)
    for credential in ([], [bearer("rubbish")], [good]):
        answer = send(gateway.port, "GET", "/assets/a.css", [*credential, *SPOOFED])
        assert answer.status == 200, answer
        seen = answer.json()["headers"]
        assert seen["x-auth-decision"] == "allow-anonymous"
        for name in ("user", "subject", "client", "scope", "roles", "session"):
            assert seen.get(f"x-auth-{name}", "") == ""
    assert send(gateway.port, "GET", "/assets/../closed/door").status != 200


@pytest.mark.usefixtures("with_policies")
def test_optional_path_knows_the_caller_where_there_is_a_token(
    gateway: GatewayUnderTest, session_login: Login
) -> None:
    good = bearer(session_login.access_token)
    known = send(gateway.port, "GET", "/maybe", [good, *SPOOFED]).json()["headers"]
    assert known["x-auth-decision"] == "allow"
    assert known["x-auth-subject"] not in {"", "root"}
    anonymous = send(gateway.port, "GET", "/maybe", SPOOFED).json()["headers"]
    assert anonymous["x-auth-decision"] == "allow-anonymous"
    assert anonymous.get("x-auth-subject", "") == ""
    assert send(gateway.port, "GET", "/maybe", [bearer("rubbish")]).status == 401


@pytest.mark.usefixtures("with_policies")
@pytest.mark.parametrize(
    ("host", "lies", "passes"),
    [
        ("open.example.com", [], True),
        ("OPEN.example.com:8080", [], True),
        ("a.pub.example.com", [], True),
        ("pub.example.com", [], False),
        ("other.example.com", [], False),
        ("other.example.com", [("X-Original-Host", "open.example.com")], False),
        ("other.example.com", [("X-Forwarded-Host", "open.example.com")], False),
        ("open.example.com.evil.test", [], False),
    ],
)
def test_rule_sees_the_host_that_the_client_asked(
    gateway: GatewayUnderTest, host: str, lies: list[tuple[str, str]], passes: bool
) -> None:
    """R3: and no other header says the host."""
    lines = "".join(f"{name}: {value}\r\n" for name, value in lies)
    head = f"GET /by-host HTTP/1.1\r\nHost: {host}\r\n{lines}\r\n"
    with socket.create_connection(("127.0.0.1", gateway.port), 10) as connection:
        connection.sendall(head.encode())
        answer = read_answer(connection, "GET")
    assert (answer.status == 200) is passes, answer
