"""What Envoy makes of the verifier's answers over gRPC, also on other configs."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from tests.gateways.conftest import running
from tests.support.gateway_kinds.kind import replace_once
from tests.support.processes import free_port, wait_until
from tests.support.raw_http import RawAnswer, bearer, send
from tests.support.stack import GatewayUnderTest, Login, Stack

pytestmark = pytest.mark.processes

EVIL = "mallory-was-here"


@pytest.fixture(scope="module")
def envoy_grpc(stack: Stack) -> GatewayUnderTest:
    return running("envoy-grpc", stack)


@pytest.fixture(scope="module")
def bare(envoy_grpc: GatewayUnderTest, stack: Stack) -> GatewayUnderTest:
    """Without all that keeps a client's headers from verifier and application."""

    def edit(folder: Path) -> None:
        config = folder / "envoy.yaml"
        replace_once(config, "headers_with_underscores_action: DROP_HEADER", "")
        replace_once(config, "encode_raw_headers: true", "")
        text = config.read_text()
        text = re.sub(r" +allowed_headers:\n +patterns:\n( +- .*\n)+", "", text)
        text = re.sub(r" +- remove_on_match: .*\n", "", text)
        assert "allowed_headers:" not in text
        assert "x-auth-" not in text
        config.write_text(text)

    return stack.start_gateway(envoy_grpc.name, "bare", edit=edit)


@pytest.mark.parametrize(
    "name", ["X-Auth-User", "X_Auth_User", "X-Auth_User", "X-Auth-Admin", "x_auth-role"]
)
def test_r11_the_verifier_itself_removes_what_a_client_forged(
    bare: GatewayUnderTest, session_login: Login, name: str
) -> None:
    token = bearer(session_login.access_token)
    answer = send(bare.port, "GET", "/orders", [token, (name, EVIL), (name, EVIL)])
    assert answer.status == 200
    seen = answer.json()["headers"]
    assert EVIL not in str(seen)
    assert "authorization" not in seen
    identity = {n: v for n, v in seen.items() if n.startswith("x-auth-")}
    assert identity == session_login.identity


def test_r4_two_credentials_are_refused_as_envoy_joins_them(
    bare: GatewayUnderTest, session_login: Login
) -> None:
    token = bearer(session_login.access_token)
    assert send(bare.port, "GET", "/orders", [token]).status == 200
    assert send(bare.port, "GET", "/orders", [token, token]).status == 401


def test_a_request_with_large_headers_passes_without_a_list_of_headers(
    bare: GatewayUnderTest, session_login: Login
) -> None:
    """The verifier takes as many bytes as Envoy does."""
    token = bearer(session_login.access_token)
    cookies = [(f"X-Large-{n}", "a" * 8_000) for n in range(6)]
    assert send(bare.port, "GET", "/orders", [token, *cookies]).status == 200


def test_a_client_gets_the_verifiers_own_503(
    envoy_grpc: GatewayUnderTest, stack: Stack, session_login: Login
) -> None:
    """Over HTTP Envoy answers by itself then, without the decision's id."""
    nowhere = f"http://127.0.0.1:{free_port()}"
    with stack.verifier_replaced(
        ready="/healthz",
        VERIFIER_JWKS_URL=f"{nowhere}/jwks.json",
        VERIFIER_FEED_URL=f"{nowhere}/feed",
        VERIFIER_STATE_DIR="",
    ):
        token = bearer(session_login.access_token)

        def ask() -> RawAnswer:
            answer = send(envoy_grpc.port, "GET", "/orders", [token])
            assert answer.status == 503
            return answer

        # Until its port is open, Envoy answers by itself.
        wait_until(lambda: ask().body, what="an answer of the verifier")
        answer = ask()
    assert answer.json()["detail"] == "The gate cannot decide at the moment."
    assert len(answer.header("X-Auth-Decision-Id") or "") == 16


def test_checks_go_over_a_unix_socket(
    envoy_grpc: GatewayUnderTest, stack: Stack, session_login: Login, tmp_path: Path
) -> None:
    """As the config's comment says."""
    path = tmp_path / "grpc.sock"

    def edit(folder: Path) -> None:
        config = folder / "envoy.yaml"
        port = stack.addresses.grpc_verifier
        written = f"socket_address: {{ address: 127.0.0.1, port_value: {port} }}"
        text = config.read_text()
        assert text.count(written) == 2
        config.write_text(text.replace(written, f"pipe: {{ path: {path} }}"))

    with stack.verifier_replaced(VERIFIER_GRPC_BIND=f"unix:{path}"):
        over_unix = stack.start_gateway(envoy_grpc.name, "unix", edit=edit)
        token = bearer(session_login.access_token)
        assert send(over_unix.port, "GET", "/orders", [token]).status == 200
        assert send(over_unix.port, "GET", "/orders").status == 401
