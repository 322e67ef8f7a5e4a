"""When no verifier can decide, clients get "not now": never "pass", never "not you"
(R38).
"""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from deploy.demo.installation import ROOT
from tests.support.processes import (
    ProcessFactory,
    free_port,
    is_listening,
    wait_until,
)
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
    """It never had keys or feed: it answers 503 itself, and nginx makes that
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


def test_answer_that_takes_a_tenth_of_a_second_is_waited_for(
    gateway: GatewayUnderTest, stack: Stack, session_login: Login, tmp_path: Path
) -> None:
    """Envoy takes the longest back-off between two tries for the time of one try: with
    25 ms a check failed whenever the machine was busy.
    """
    factory, port = ProcessFactory(tmp_path), free_port()
    door = gateway.kind.check_door
    verifier = f"127.0.0.1:{getattr(stack.addresses, door)}"
    try:
        factory.start(
            "relay",
            (
                *(sys.executable, "-m", "tests.support.tcp_relay", "--delay", "0.06"),
                *("--listen", f"127.0.0.1:{port}", "--to", verifier),
            ),
            cwd=ROOT,
            ready=lambda: is_listening(port),
        )
        slow = stack.start_gateway(
            gateway.name,
            "slow-verifier",
            edit=None,
            **{door: port, f"second_{door}": port},
        )
        wait_until(
            lambda: ask(slow, session_login).status == 200,
            what="a check answered over a slow line",
        )
    finally:
        factory.stop_all()
