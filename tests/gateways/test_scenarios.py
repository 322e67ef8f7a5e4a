"""Every scenario of the list through every gateway, with the configs users copy."""

from __future__ import annotations

import pytest

from tests.gateways.scenarios import EVIL, SCENARIOS, Scenario
from tests.support.raw_http import RawAnswer, send
from tests.support.stack import GatewayUnderTest, Login

pytestmark = pytest.mark.processes


@pytest.mark.parametrize("scenario", SCENARIOS, ids=lambda scenario: scenario.title)
def test_gateway_gives_the_answer_of_the_scenario(
    gateway: GatewayUnderTest, session_login: Login, scenario: Scenario
) -> None:
    """R2, R4, R6, R10, R11, R13: see the scenario's title."""
    login = session_login
    answer = send(
        gateway.port,
        scenario.method,
        scenario.target.replace("{token}", login.access_token),
        [(n, v.replace("{token}", login.access_token)) for n, v in scenario.headers],
        scenario.body,
    )
    assert answer.status in scenario.statuses
    if answer.status == 200:
        assert_app_saw(answer, scenario, login, gateway)
    elif answer.status == 401:
        challenge = answer.header("WWW-Authenticate")
        assert challenge is not None
        assert challenge.startswith("Bearer")


def assert_app_saw(
    answer: RawAnswer, scenario: Scenario, login: Login, gateway: GatewayUnderTest
) -> None:
    """The application saw this request, the verified identity once, and nothing
    forged.
    """
    if scenario.method == "HEAD":
        assert answer.body == b""
        return
    seen = answer.json()
    assert seen["method"] == scenario.method
    assert seen["path"] == scenario.target
    headers = seen["headers"]
    assert EVIL not in str(headers)
    identity = {
        n: v for n, v in headers.items() if n.replace("_", "-").startswith("x-auth-")
    }
    assert identity == gateway.seen_identity(login.identity)
    # The token is not passed on: a program that has it could use it elsewhere.
    assert login.access_token not in str(headers)
