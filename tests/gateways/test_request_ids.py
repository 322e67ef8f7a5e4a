"""Client, gateway and the verifier's log have the same id of a refused request."""

from __future__ import annotations

import json
from typing import Any

import pytest

from deploy.gateway_programs.registry import PROGRAMS
from tests.support.processes import wait_until
from tests.support.raw_http import RawAnswer, send
from tests.support.stack import GatewayUnderTest, Stack

pytestmark = pytest.mark.processes

CLIENTS_ID = ("X-Request-ID", "made-by-the-client")
TRACE = "0af7651916cd43dd8448eb211c80319c"


@pytest.fixture
def showing(gateway: GatewayUnderTest, stack: Stack) -> GatewayUnderTest:
    edit = gateway.kind.show_request_id
    return stack.start_gateway(gateway.name, "request-ids", edit=edit)


def shown_id(answer: RawAnswer) -> str:
    found = answer.header("X-Shown-Id") or answer.header("X-Request-Id")
    assert found is not None
    return found


def find_line(
    stack: Stack, gateway: GatewayUnderTest, answer: RawAnswer
) -> dict[str, Any]:
    """Return the verifier's one line about a refused request."""
    if gateway.kind.gives_request_ids:
        request_id = shown_id(answer)
    else:
        request_id = answer.header("X-Auth-Decision-Id") or ""
    assert request_id
    found: list[dict[str, Any]] = []

    def is_there() -> bool:
        lines = [
            line for line in stack.verifier.log().splitlines() if request_id in line
        ]
        found[:] = [json.loads(line) for line in lines]
        return bool(found)

    wait_until(is_there, what="the verifier's line about the request")
    (line,) = found
    return line


def test_the_verifiers_line_has_the_gateways_request_id(
    showing: GatewayUnderTest, stack: Stack
) -> None:
    """A refused client's request is found in the logs by the id that the gateway
    gave.
    """
    headers = [
        ("Authorization", "Bearer not.a.token"),
        CLIENTS_ID,
        ("Traceparent", f"00-{TRACE}-b7ad6b7169203331-01"),
    ]
    target = "/orders/secret-path?secret=query"
    answer = send(showing.port, "GET", target, headers)
    assert answer.status == 401
    line = find_line(stack, showing, answer)
    assert line["event"] == "gate.refused"
    assert line["level"] == "info"
    assert line["dialect"] == PROGRAMS[showing.name].dialect
    assert line["policy"] == "default"
    if showing.kind.gives_request_ids:
        assert line["request_id"] == shown_id(answer)
    assert CLIENTS_ID[1] not in json.dumps(line)
    assert line["trace_id"] == TRACE
    assert "secret" not in json.dumps(line)


def test_the_application_gets_the_same_request_id(
    showing: GatewayUnderTest, token: tuple[str, str]
) -> None:
    answer = send(showing.port, "GET", "/orders", [token, CLIENTS_ID])
    assert answer.status == 200
    headers = answer.json()["headers"]
    if showing.kind.gives_request_ids:
        assert headers["x-request-id"] == shown_id(answer)
    assert CLIENTS_ID[1] not in str(headers)


def test_an_unsafe_traceparent_of_a_client_is_in_no_line(
    showing: GatewayUnderTest, stack: Stack
) -> None:
    """R35: the gateway passes it on as the client wrote it."""
    headers = [("Traceparent", f"00-{TRACE}-b7ad6b7169203331-01 injected")]
    answer = send(showing.port, "GET", "/orders", headers)
    assert answer.status == 401
    line = find_line(stack, showing, answer)
    assert "trace_id" not in line
    assert "injected" not in stack.verifier.log()
