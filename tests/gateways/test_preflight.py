"""A policy lets CORS preflights pass, and sends claims in headers of its own."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.support.raw_http import bearer, send
from tests.support.stack import GatewayUnderTest, Login, Stack

pytestmark = pytest.mark.processes

PREFLIGHT_FILE = """\
[policies.default]
preflight = "allow"
[policies.default.headers]
X-Auth-Login-Time = "auth_time"
"""
SPOOFED = [("X-Auth-User", "root"), ("X-Auth-Decision", "allow")]


@pytest.fixture(scope="module")
def with_preflight(stack: Stack) -> Iterator[None]:
    path = stack.installation.var / "preflight.toml"
    path.write_text(PREFLIGHT_FILE)
    with stack.verifier_replaced(VERIFIER_POLICY_FILE=str(path)):
        yield


@pytest.mark.usefixtures("with_preflight")
def test_preflight_reaches_the_application_without_a_token(
    gateway: GatewayUnderTest,
) -> None:
    cors = [("Origin", "https://a.test"), ("Access-Control-Request-Method", "PUT")]
    answer = send(gateway.port, "OPTIONS", "/x", [*cors, *SPOOFED])
    assert answer.status == 200, answer
    seen = answer.json()
    assert seen["method"] == "OPTIONS"
    assert seen["headers"]["x-auth-decision"] == "allow-anonymous"
    assert seen["headers"].get("x-auth-user", "") == ""
    assert send(gateway.port, "PUT", "/x", cors).status == 401
    assert send(gateway.port, "OPTIONS", "/x", cors[:1]).status == 401
    assert send(gateway.port, "OPTIONS", "/x", [*cors, bearer("x")]).status == 401


@pytest.mark.usefixtures("with_preflight")
def test_claim_is_sent_where_the_gateway_passes_it_on(
    gateway: GatewayUnderTest, session_login: Login
) -> None:
    """nginx passes the headers that its config names, Envoy all of ours."""
    lie = ("X-Auth-Login-Time", "0")
    token = bearer(session_login.access_token)
    answer = send(gateway.port, "GET", "/x", [token, *SPOOFED])
    assert answer.status == 200
    if gateway.kind.passes_by_prefix:
        answer = send(gateway.port, "GET", "/x", [token, lie])
        assert int(answer.json()["headers"]["x-auth-login-time"]) > 1_700_000_000
