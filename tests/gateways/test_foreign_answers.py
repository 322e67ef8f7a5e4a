"""A program that is no verifier answers 200 at the verifier's address."""

from __future__ import annotations

import pytest

from tests.support.raw_http import bearer, send
from tests.support.stack import GatewayUnderTest, Login, Stack

pytestmark = pytest.mark.processes

#: What a client may add to look like one that was allowed.
FORGED = ("X-Auth-Decision", "X_Auth_Decision")


@pytest.fixture(scope="module")
def misled(gateway: GatewayUnderTest, stack: Stack) -> GatewayUnderTest:
    """The gateway, asking the application, which answers every request with 200."""
    door, foreign = gateway.kind.check_door, stack.addresses.app
    ports = {door: foreign, f"second_{door}": foreign}
    return stack.start_gateway(gateway.name, "misled", edit=None, **ports)


def test_answer_of_another_program_is_no_allow(
    misled: GatewayUnderTest, session_login: Login
) -> None:
    """A verifier's allow has a decision, and a client cannot write one."""
    token = bearer(session_login.access_token)
    attempts = [[], [token], *([(name, "allow")] for name in FORGED)]
    answers = [send(misled.port, "GET", "/orders", sent) for sent in attempts]
    assert {answer.status for answer in answers} == {503}
    assert {answer.header("Retry-After") for answer in answers} == {"5"}
