"""Protections of the Envoy config that nginx cannot have."""

from __future__ import annotations

import pytest

from tests.support.raw_http import bearer, send
from tests.support.stack import GatewayUnderTest, Login

pytestmark = pytest.mark.processes


def test_envoy_removes_every_name_with_the_identity_prefix(
    envoy: GatewayUnderTest, session_login: Login
) -> None:
    """R11: nginx blanks listed names only; Envoy removes every name with the prefix."""
    token = bearer(session_login.access_token)
    forged = ("X-Auth-Shoe-Size", "46")
    answer = send(envoy.port, "GET", "/orders", [token, forged])
    assert answer.status == 200
    assert "x-auth-shoe-size" not in answer.json()["headers"]


@pytest.mark.parametrize("target", ["/a%2fb", "/a%5cb", "/a%2Fb"])
def test_envoy_refuses_escaped_slashes_itself(
    envoy: GatewayUnderTest, session_login: Login, target: str
) -> None:
    """R7."""
    token = bearer(session_login.access_token)
    assert send(envoy.port, "GET", target, [token]).status == 400


def test_envoy_routes_the_path_it_had_checked(
    envoy: GatewayUnderTest, session_login: Login
) -> None:
    """R7: normalised once, before the check."""
    token = bearer(session_login.access_token)
    answer = send(envoy.port, "GET", "/a//b/../c", [token])
    assert answer.status == 200
    assert answer.json()["path"] == "/a/c"


def test_refused_client_gets_the_verifiers_problem_document(
    envoy: GatewayUnderTest,
) -> None:
    answer = send(envoy.port, "GET", "/orders")
    assert answer.header("Content-Type") == "application/problem+json"
    assert answer.json()["status"] == 401
