"""Decision ids and resource metadata reach the client through real gateways."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from functools import partial

import pytest

from tests.support.processes import wait_until
from tests.support.raw_http import bearer, send
from tests.support.stack import GatewayUnderTest, Login, Stack

pytestmark = pytest.mark.processes

POLICY_FILE = """\
[policies.default]
decision_ids = true
resource_metadata = { resource = "https://app.example.com/" }
[[policies.default.rules]]
path = "/open/**"
[[policies.default.rules]]
path = "/closed/**"
required_scopes = ["nobody:has-this"]
"""
WELL_KNOWN = "/.well-known/oauth-protected-resource"
SPOOFED = ("X-Auth-Decision-Id", "0123456789abcdef")


@pytest.fixture(scope="module", autouse=True)
def with_policies(stack: Stack) -> Iterator[None]:
    path = stack.installation.var / "decision-ids.toml"
    path.write_text(POLICY_FILE)
    with stack.verifier_replaced(VERIFIER_POLICY_FILE=str(path)):
        yield


def is_logged(stack: Stack, decision_id: str) -> bool:
    return decision_id in stack.verifier.log()


def test_refused_client_gets_the_id_of_the_log_line(
    gateway: GatewayUnderTest, session_login: Login, stack: Stack
) -> None:
    """R66: an operator finds out why, without the token."""
    good = bearer(session_login.access_token)
    for status, target, credential in (
        (401, "/open/a", []),
        (401, "/open/a", [bearer("rubbish")]),
        (403, "/closed/a", [good]),
    ):
        answer = send(gateway.port, "GET", target, [*credential, SPOOFED])
        assert answer.status == status
        decision_id = answer.header("X-Auth-Decision-Id") or ""
        assert re.fullmatch("[0-9a-f]{16}", decision_id)
        assert decision_id != SPOOFED[1]
        wait_until(partial(is_logged, stack, decision_id), what="the line")
        challenge = answer.header("WWW-Authenticate") or ""
        url = f"https://app.example.com{WELL_KNOWN}"
        assert f'resource_metadata="{url}"' in challenge
        assert ('scope="nobody:has-this"' in challenge) is (target == "/closed/a")


def test_application_gets_the_id_of_an_allow(
    gateway: GatewayUnderTest, session_login: Login
) -> None:
    good = bearer(session_login.access_token)
    answer = send(gateway.port, "GET", "/open/a", [good, SPOOFED])
    assert answer.status == 200
    found = answer.json()["headers"]["x-auth-decision-id"]
    assert re.fullmatch("[0-9a-f]{16}", found)
    assert found != SPOOFED[1]


@pytest.mark.parametrize("credential", [[], [bearer("rubbish")]], ids=["none", "bad"])
def test_anyone_can_read_the_metadata(
    gateway: GatewayUnderTest, credential: list[tuple[str, str]]
) -> None:
    """RFC 9728, section 3: a client has no token yet."""
    answer = send(gateway.port, "GET", WELL_KNOWN, credential)
    assert answer.status == 200
    assert answer.header("Access-Control-Allow-Origin") == "*"
    assert json.loads(answer.body)["resource"] == "https://app.example.com/"


@pytest.mark.parametrize(
    ("method", "target"),
    [
        ("POST", WELL_KNOWN),
        ("GET", f"{WELL_KNOWN}/"),
        ("GET", f"{WELL_KNOWN}/open/a"),
        ("GET", f"{WELL_KNOWN}/../../open/a"),
        ("GET", f"{WELL_KNOWN}/%2e%2e/%2e%2e/open/a"),
        ("GET", f"{WELL_KNOWN}x"),
        ("GET", f"/x/..{WELL_KNOWN}/../../open/a"),
    ],
)
def test_nothing_else_passes_without_a_token(
    gateway: GatewayUnderTest, method: str, target: str
) -> None:
    """R9: the route that is not checked leads to the document alone."""
    answer = send(gateway.port, method, target)
    assert answer.status in {400, 401, 403, 404}
