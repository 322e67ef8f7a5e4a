"""Log in, pass the gate, log out, be refused: the whole path through real programs."""

from __future__ import annotations

import pytest

from tests.support.raw_http import bearer, send
from tests.support.stack import GatewayUnderTest, Stack

pytestmark = pytest.mark.processes


def status_through(gateway: GatewayUnderTest, token: str) -> int:
    return send(gateway.port, "GET", "/orders", [bearer(token)]).status


def test_logout_ends_the_session_at_the_gate(
    gateway: GatewayUnderTest, stack: Stack
) -> None:
    login = stack.log_in()
    other = stack.log_in()
    assert status_through(gateway, login.access_token) == 200

    stack.log_out(login)

    # Confirmed: from now on, even on a busy machine.
    assert status_through(gateway, login.access_token) == 401
    assert stack.refresh(login.refresh_token).status in {400, 401}
    # ... and of no other user.
    assert status_through(gateway, other.access_token) == 200


def test_refreshed_token_passes_and_belongs_to_the_same_session(
    gateway: GatewayUnderTest, stack: Stack
) -> None:
    login = stack.log_in()

    renewed = stack.refreshed(login)

    assert status_through(gateway, renewed.access_token) == 200
    assert renewed.identity["x-auth-session"] == login.identity["x-auth-session"]
    assert renewed.refresh_token != login.refresh_token


def test_replayed_refresh_token_ends_its_family_at_the_gate(
    gateway: GatewayUnderTest, stack: Stack
) -> None:
    """R28, R29: a spent token whose successor was used means that one was stolen."""
    login = stack.log_in()
    second = stack.refreshed(login)
    third = stack.refreshed(second)
    assert status_through(gateway, third.access_token) == 200

    assert stack.refresh(login.refresh_token).status in {400, 401}

    tokens = (login.access_token, second.access_token, third.access_token)
    stack.confirm_all_ended()
    assert {status_through(gateway, token) for token in tokens} == {401}
    assert stack.refresh(third.refresh_token).status in {400, 401}


def test_token_of_a_client_passes_with_its_own_identity(
    gateway: GatewayUnderTest, stack: Stack
) -> None:
    client = stack.client_credentials()

    answer = send(gateway.port, "GET", "/orders", [bearer(client.access_token)])

    assert answer.status == 200
    headers = answer.json()["headers"]
    assert headers["x-auth-client"] == stack.installation.client_id
    # R10: a program has no user name; the header is empty, or absent behind nginx.
    assert headers.get("x-auth-user", "") == ""
