"""Apache's two files protect alike, and its script bounds what it reads."""

from __future__ import annotations

import threading

import pytest

from deploy.gateway_programs.program import CONFIGS
from tests.gateways.conftest import running
from tests.support.plain_app import Connection, plain_app
from tests.support.processes import free_port
from tests.support.raw_http import send
from tests.support.stack import GatewayUnderTest, Stack

FOLDER = CONFIGS / "apache"


def directives(config: str) -> list[str]:
    """Return the lines of the virtual host up to the routes, without comments."""
    text = (FOLDER / config).read_text()
    _, _, host = text.partition("<VirtualHost")
    lines = [line.strip() for line in host.splitlines()[1:]]
    kept = [line for line in lines if line and not line.startswith("#")]
    return kept[: kept.index("ProxyTimeout 3600") + 1]


def test_both_files_check_alike() -> None:
    """R2: the check, the limits and what the application learns of the way."""
    http, grpc = directives("gatehouse.conf"), directives("gatehouse_grpc.conf")
    assert "LuaHookAccessChecker gatehouse.lua gatehouse" in http
    assert "Require env gatehouse" in http
    assert grpc == [http[0], "Protocols h2c", *http[1:]]


@pytest.fixture(scope="module")
def verifier_port() -> int:
    return free_port()


@pytest.fixture(scope="module")
def apache(stack: Stack, verifier_port: int) -> GatewayUnderTest:
    """Apache before a verifier of the test's own."""
    running("apache", stack)
    ports = {"verifier": verifier_port, "second_verifier": verifier_port}
    return stack.start_gateway("apache", "own verifier", **ports)


@pytest.mark.processes
def test_a_verifier_that_takes_less_than_a_second_is_waited_for(
    apache: GatewayUnderTest, verifier_port: int
) -> None:
    """Before, the limit of a connection, 0.2 s, was that of the answer, too."""

    def answer_late(connection: Connection) -> None:
        threading.Event().wait(0.4)
        connection.write(
            b"HTTP/1.1 401 Unauthorized\r\nWWW-Authenticate: Bearer\r\n\r\n"
        )

    with plain_app(verifier_port, answer_late):
        assert send(apache.port, "GET", "/orders").status == 401


@pytest.mark.processes
@pytest.mark.parametrize(
    "piece", [b"X-Pad: " + b"p" * 8_000 + b"\r\n", b"p" * 8_000], ids=["lines", "line"]
)
def test_an_answer_without_end_is_none(
    apache: GatewayUnderTest, verifier_port: int, piece: bytes
) -> None:
    """R44: Apache kept it all in memory, and waited as long as more came."""

    def answer_for_ever(connection: Connection) -> None:
        connection.write(b"HTTP/1.1 200 OK\r\nX-Auth-Decision: allow\r\n")
        while True:
            connection.write(piece)

    with plain_app(verifier_port, answer_for_ever):
        assert send(apache.port, "GET", "/orders").status == 503
