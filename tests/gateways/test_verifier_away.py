"""When nobody can decide, clients hear "not now": never "pass", never "not you"
(R38).
"""

from __future__ import annotations

import pytest

from tests.support.processes import free_port, wait_until
from tests.support.raw_http import RawAnswer, bearer, send
from tests.support.stack import GatewayUnderTest, Login, Stack

pytestmark = pytest.mark.processes


def ask(gateway: GatewayUnderTest, login: Login) -> RawAnswer:
    return send(gateway.port, "GET", "/orders", [bearer(login.access_token)])


def assert_not_now(answer: RawAnswer) -> None:
    assert answer.status == 503
    retry_after = answer.header("Retry-After")
    assert retry_after is not None
    assert 0 < int(retry_after) <= 60
    assert answer.header("WWW-Authenticate") is None


def test_dead_verifier_means_503_and_its_return_means_200(
    gateway: GatewayUnderTest, stack: Stack, session_login: Login
) -> None:
    """The gateway fails closed, and recovers by itself."""
    assert ask(gateway, session_login).status == 200
    with stack.verifier_replaced():
        assert_not_now(ask(gateway, session_login))
        assert_not_now(send(gateway.port, "GET", "/orders"))
    wait_until(
        lambda: ask(gateway, session_login).status == 200,
        what="the gate open again",
    )


def test_frozen_verifier_means_503_long_before_a_gateways_default(
    gateway: GatewayUnderTest, stack: Stack, session_login: Login
) -> None:
    """A slow verifier counts as unavailable; by default nginx would wait 60 s.

    The shipped configs wait a second; the rest of the bound is for a busy machine.
    """
    token = bearer(session_login.access_token)
    with stack.verifier_frozen():
        answer = send(gateway.port, "GET", "/orders", [token], timeout=30.0)
    assert_not_now(answer)


def test_verifier_that_cannot_decide_is_seen_as_503(
    gateway: GatewayUnderTest, stack: Stack, session_login: Login
) -> None:
    """It never saw keys nor feed: it says 503 itself, nginx by nature makes that
    500.
    """
    nobody = f"http://127.0.0.1:{free_port()}"
    with stack.verifier_replaced(
        ready="/healthz",
        VERIFIER_JWKS_URL=f"{nobody}/jwks.json",
        VERIFIER_FEED_URL=f"{nobody}/feed",
        VERIFIER_STATE_DIR="",
    ):
        assert_not_now(ask(gateway, session_login))
