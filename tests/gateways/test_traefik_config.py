"""Protections of the Traefik config where Traefik itself would let something pass."""

from __future__ import annotations

import re
import signal
from pathlib import Path

import pytest

from tests.gateways.conftest import running
from tests.support.raw_http import bearer, send
from tests.support.stack import GatewayUnderTest, Login, Stack

pytestmark = pytest.mark.processes


@pytest.fixture
def traefik(stack: Stack) -> GatewayUnderTest:
    return running("traefik", stack)


@pytest.mark.parametrize(
    "name", ["X-Auth-Shoe-Size", "X-Auth", "X.Auth.Subject", "x_auth-Subject"]
)
def test_every_spelling_of_the_identity_prefix_is_removed(
    traefik: GatewayUnderTest, session_login: Login, name: str
) -> None:
    """R11: Apache's CGI reads each of these like X-Auth-..."""
    token = bearer(session_login.access_token)
    answer = send(traefik.port, "GET", "/orders", [token, (name, "mallory")])
    assert answer.status == 200
    assert "mallory" not in str(answer.json()["headers"])


def test_a_mistake_in_the_pattern_opens_no_identity_header(
    stack: Stack, traefik: GatewayUnderTest, session_login: Login
) -> None:
    """R11: the names that the verifier sends are listed beside the pattern."""

    def edit(folder: Path) -> None:
        config = folder / "gatehouse.yml"
        pattern = r'authResponseHeadersRegex: "(?:\\\n|[^"])+"'
        text, count = re.subn(
            pattern, 'authResponseHeadersRegex: "^$"', config.read_text()
        )
        assert count == 1
        config.write_text(text)

    mistaken = stack.start_gateway(traefik.name, "no pattern", edit=edit)
    identity = session_login.identity
    spoofed = [(name, "mallory") for name in [*identity, "x-auth-decision-id"]]
    token = bearer(session_login.access_token)
    answer = send(mistaken.port, "GET", "/orders", [token, *spoofed])
    assert answer.status == 200
    seen = answer.json()["headers"]
    assert "mallory" not in str(seen)
    assert {name: seen[name] for name in identity} == identity


@pytest.mark.parametrize("target", ["app.test:443", "/orders"])
def test_no_client_opens_a_tunnel(
    traefik: GatewayUnderTest, session_login: Login, target: str
) -> None:
    """R7: after a 200 to CONNECT, every byte would pass."""
    token = bearer(session_login.access_token)
    assert send(traefik.port, "CONNECT", target, [token]).status in {404, 501}


@pytest.mark.parametrize("target", ["/away", "/verify/traefik", "/verify/traefik/p/x"])
def test_the_way_to_the_verifier_is_not_open_to_clients(
    traefik: GatewayUnderTest, session_login: Login, target: str
) -> None:
    """R9: these paths are routes of the other listener only."""
    assert send(traefik.port, "GET", target).status == 401
    token = bearer(session_login.access_token)
    answer = send(traefik.port, "GET", target, [token])
    assert answer.json()["path"] == target


def test_refused_client_gets_the_verifiers_problem_document(
    traefik: GatewayUnderTest,
) -> None:
    answer = send(traefik.port, "GET", "/orders")
    assert answer.header("Content-Type") == "application/problem+json"
    assert answer.json()["status"] == 401


def test_traefik_that_stops_with_a_grace_time_still_lets_good_requests_pass(
    stack: Stack, traefik: GatewayUnderTest, session_login: Login
) -> None:
    """By default `ping`, which tells an allow from another 200, is 503 from then on."""

    def edit(folder: Path) -> None:
        config = folder / "traefik.yml"
        grace = "transport:\n      lifeCycle: { requestAcceptGraceTimeout: 60s }"
        text = config.read_text().replace("transport:", grace)
        config.write_text(text.replace("level: WARN", "level: INFO"))

    stopping = stack.start_gateway(traefik.name, "stopping", edit=edit)
    process = stopping.process
    try:
        process.send_signal(signal.SIGTERM)
        process.wait_until(
            lambda: "Waiting" in process.log(), what="the begin of the grace time"
        )
        token = bearer(session_login.access_token)
        answers = [send(stopping.port, "GET", "/orders", [token]) for _ in range(5)]
        assert [answer.status for answer in answers] == [200] * 5
    finally:
        process.kill()
