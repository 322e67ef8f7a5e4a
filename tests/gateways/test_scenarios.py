"""Every scenario of the list through every gateway, with the configs users copy."""

from __future__ import annotations

import pytest

from tests.support.raw_http import RawAnswer, send
from tests.support.stack import GatewayUnderTest, Login
from verifier.doctor.scenarios import EVIL, SCENARIOS, Scenario

pytestmark = pytest.mark.processes
#: A protected path.
PATH = "/orders"


@pytest.mark.parametrize("scenario", SCENARIOS, ids=lambda scenario: scenario.title)
def test_gateway_gives_the_answer_of_the_scenario(
    gateway: GatewayUnderTest, session_login: Login, scenario: Scenario
) -> None:
    """R2, R4, R6, R10, R11, R13: see the scenario's title."""
    login = session_login
    answer = send(
        gateway.port,
        scenario.method,
        scenario.target_at(PATH, login.access_token),
        scenario.headers_with(login.access_token),
        scenario.body,
    )
    assert answer.status in gateway.kind.differences.statuses(scenario)
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
    assert seen["path"] == scenario.target_at(PATH)
    headers = seen["headers"]
    assert EVIL not in str(headers)
    identity = {
        n: v for n, v in headers.items() if n.replace("_", "-").startswith("x-auth-")
    }
    assert identity == gateway.seen_identity(login.identity)
    # The token is not passed on: a program that has it could use it elsewhere.
    assert login.access_token not in str(headers)
