"""Each gateway does what its kind says, where gateways differ."""

from __future__ import annotations

import pytest

from tests.support.raw_http import bearer, send
from tests.support.stack import GatewayUnderTest, Login

pytestmark = pytest.mark.processes


def test_names_with_the_identity_prefix_are_removed(
    gateway: GatewayUnderTest, session_login: Login
) -> None:
    """R11: nginx blanks listed names only; the others remove every such name."""
    token = bearer(session_login.access_token)
    forged = ("X-Auth-Shoe-Size", "46")
    answer = send(gateway.port, "GET", "/orders", [token, forged])
    assert answer.status == 200
    is_removed = "x-auth-shoe-size" not in answer.json()["headers"]
    assert is_removed is gateway.kind.removes_by_prefix


def test_refused_client_gets_the_verifiers_problem_document(
    gateway: GatewayUnderTest,
) -> None:
    answer = send(gateway.port, "GET", "/orders")
    content_type = answer.header("Content-Type")
    is_passed = content_type == "application/problem+json"
    assert is_passed is gateway.kind.passes_problems
    if is_passed:
        assert answer.json()["status"] == 401


def test_path_is_written_in_one_form_where_the_gateway_does_so(
    gateway: GatewayUnderTest, session_login: Login
) -> None:
    """R7: at any rate the checked path is the one that the application gets."""
    token = bearer(session_login.access_token)
    answer = send(gateway.port, "GET", "/a//b/../c", [token])
    assert answer.status == 200
    is_canonical = answer.json()["path"] == "/a/c"
    assert is_canonical is gateway.kind.writes_canonical_paths


def test_no_value_of_a_client_is_taken_for_a_placeholder(
    gateway: GatewayUnderTest, session_login: Login
) -> None:
    """Configs name variables as `{env.HOME}` or `$host`; a client's are no such."""
    token = bearer(session_login.access_token)
    written = "{env.HOME} {http.request.uuid} $host ${host} %{HOME}e %REQ(:path)%"
    answer = send(gateway.port, "GET", "/orders", [token, ("X-Mine", written)])
    assert answer.status == 200
    assert answer.json()["headers"]["x-mine"] == written
