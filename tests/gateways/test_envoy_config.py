"""Protections of the Envoy config that nginx cannot have."""

from __future__ import annotations

import pytest

from tests.support.raw_http import bearer, send
from tests.support.stack import GatewayUnderTest, Login

pytestmark = pytest.mark.processes


@pytest.mark.parametrize("target", ["/a%2fb", "/a%5cb", "/a%2Fb"])
def test_envoy_refuses_escaped_slashes_itself(
    envoy: GatewayUnderTest, session_login: Login, target: str
) -> None:
    """R7."""
    token = bearer(session_login.access_token)
    assert send(envoy.port, "GET", target, [token]).status == 400
