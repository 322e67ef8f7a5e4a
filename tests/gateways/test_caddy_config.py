"""Protections of the Caddyfile where Caddy itself would let something pass."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from tests.gateways.conftest import running
from tests.support.plain_app import Connection, plain_app
from tests.support.processes import free_port
from tests.support.raw_http import bearer, send
from tests.support.stack import GatewayUnderTest, Login, Stack

pytestmark = pytest.mark.processes

#: A tunnel of HTTP/2 (RFC 9113, section 8.5), and in it a request of HTTP/1.1.
_TUNNEL = """
const http2 = require('node:http2');
const [url, authorization] = process.argv.slice(1);
const client = http2.connect(url);
const headers = { ':method': 'CONNECT', ':authority': 'shop.test', authorization };
const request = client.request(headers);
request.on('response', (headers) => {
  console.log(headers[':status']);
  client.destroy();
});
request.on('error', () => client.destroy());
request.write('GET /inner HTTP/1.1\\r\\nHost: a\\r\\nX-Auth-User: mallory\\r\\n\\r\\n');
setTimeout(() => client.destroy(), 5000).unref();
"""


@pytest.fixture(params=["caddy", "caddy-2.11"])
def caddy(request: pytest.FixtureRequest, stack: Stack) -> GatewayUnderTest:
    return running(str(request.param), stack)


def test_no_client_opens_a_tunnel_of_http_2(
    stack: Stack, caddy: GatewayUnderTest, session_login: Login
) -> None:
    """R9: Caddy writes the bytes of the tunnel to the application, unchecked."""
    app, door = free_port(), free_port()
    before_app = stack.start_gateway(
        caddy.name, "tunnel", app=app, grpc_gateway=door
    ).addresses
    seen: list[bytes] = []

    def note(connection: Connection) -> None:
        seen.append(connection.head)
        connection.write(b"HTTP/1.1 200 OK\r\n\r\n")
        seen.append(connection.read_head())

    node = Path(sys.executable).parent / "node"
    url = f"http://127.0.0.1:{before_app.grpc_gateway}"
    token = bearer(session_login.access_token)[1]
    with plain_app(app, note):
        done = subprocess.run(
            [str(node), "-e", _TUNNEL, url, token],
            capture_output=True,
            text=True,
            check=True,
            timeout=60,
        )
    assert (done.stdout, seen) == ("405\n", [])


@pytest.mark.parametrize("target", ["app.test:443", "/orders"])
def test_no_client_opens_a_tunnel(
    caddy: GatewayUnderTest, session_login: Login, target: str
) -> None:
    token = bearer(session_login.access_token)
    assert send(caddy.port, "CONNECT", target, [token]).status == 405


@pytest.mark.parametrize("mark", "_.!#$%&'*+^`|~")
def test_no_name_with_another_character_passes(
    caddy: GatewayUnderTest, session_login: Login, mark: str
) -> None:
    """R11: some servers write `_` for every such character."""
    token = bearer(session_login.access_token)
    forged = (f"X{mark}Auth{mark}Subject", "mallory")
    answer = send(caddy.port, "GET", "/orders", [token, forged])
    assert answer.status == 200
    assert "mallory" not in str(answer.json()["headers"])
