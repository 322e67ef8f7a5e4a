"""Protections of the HAProxy config where HAProxy itself would let a request pass."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.gateways.conftest import running
from tests.support.gateway_kinds.kind import replace_once
from tests.support.plain_app import Connection, plain_app
from tests.support.processes import free_port
from tests.support.raw_http import bearer, send
from tests.support.stack import GatewayUnderTest, Login, Stack

pytestmark = pytest.mark.processes

ASK = "local answer = ask(listener, path, question)"
BROKEN = {
    "raises": f'{ASK}\n    error("broken")',
    "returns": f"{ASK}\n    do return end",
    "gets no status": "local answer = {}",
    "gets a status of another type": 'local answer = { status = "200", headers = {} }',
}


@pytest.fixture
def haproxy(stack: Stack) -> GatewayUnderTest:
    return running("haproxy", stack)


@pytest.mark.parametrize("how", BROKEN)
def test_an_action_that_fails_lets_nothing_pass(
    stack: Stack, haproxy: GatewayUnderTest, session_login: Login, how: str
) -> None:
    """R38: HAProxy logs an error of an action, and goes on with the next rule."""

    def edit(folder: Path) -> None:
        replace_once(folder / "gatehouse.lua", ASK, BROKEN[how])

    broken = stack.start_gateway(haproxy.name, f"broken {how}", edit=edit)
    for credential in ([], [bearer(session_login.access_token)]):
        answer = send(broken.port, "GET", "/orders", credential)
        assert answer.status == 503
        assert answer.header("Retry-After") == "5"


def test_a_200_of_another_program_lets_nothing_pass(
    stack: Stack, haproxy: GatewayUnderTest, session_login: Login
) -> None:
    """R38: as when a program is started at the address of a verifier that is away."""
    port = free_port()
    other = stack.start_gateway(
        haproxy.name, "other program", verifier=port, second_verifier=port
    )
    raw = b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\nX-Auth-User: eve\r\n\r\nhello"
    with plain_app(port, lambda connection: connection.write(raw)):
        token = bearer(session_login.access_token)
        answer = send(other.port, "GET", "/orders", [token])
    assert answer.status == 503


def test_an_answer_without_end_is_none(stack: Stack, haproxy: GatewayUnderTest) -> None:
    """R44: HAProxy's client kept it all in memory, and waited as long as more came."""
    port = free_port()
    before = stack.start_gateway(
        haproxy.name, "endless", verifier=port, second_verifier=port
    )

    def answer_for_ever(connection: Connection) -> None:
        connection.write(
            b"HTTP/1.1 401 Unauthorized\r\nX-Auth-Decision-Id: 0123\r\n"
            b"Transfer-Encoding: chunked\r\n\r\n"
        )
        while True:
            connection.write(b"1000\r\n" + b"x" * 4_096 + b"\r\n")

    with plain_app(port, answer_for_ever):
        assert send(before.port, "GET", "/orders").status == 503


@pytest.mark.parametrize(
    "name", ["X-Auth-Shoe-Size", "X-Auth", "X.Auth.Subject", "x_auth-Subject"]
)
def test_every_spelling_of_the_identity_prefix_is_removed(
    haproxy: GatewayUnderTest, session_login: Login, name: str
) -> None:
    """R11: Apache's CGI reads each of these like X-Auth-..."""
    token = bearer(session_login.access_token)
    answer = send(haproxy.port, "GET", "/orders", [token, (name, "mallory")])
    assert answer.status == 200
    assert "mallory" not in str(answer.json()["headers"])


@pytest.mark.parametrize("target", ["app.test:443", "/orders"])
def test_no_client_opens_a_tunnel(
    haproxy: GatewayUnderTest, session_login: Login, target: str
) -> None:
    """R7: HAProxy passes CONNECT on, and after a 200 every byte."""
    token = bearer(session_login.access_token)
    assert send(haproxy.port, "CONNECT", target, [token]).status in {400, 405}


def test_refused_client_gets_the_verifiers_problem_document(
    haproxy: GatewayUnderTest,
) -> None:
    answer = send(haproxy.port, "GET", "/orders")
    assert answer.header("Content-Type") == "application/problem+json"
    assert answer.json()["status"] == 401
