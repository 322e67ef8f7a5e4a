"""The identity of the longest token reaches the application through every config (R63).

Tokens of another issuer than ours may hold what ours refuses to grant: the verifier's
own limit, 8,000 bytes, is what gateways have to stand (vouch 426, oauth2-proxy 676).
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

import pytest

from deploy.gateway_programs.program import CONFIGS
from shared.claims import MAX_TOKEN_BYTES
from shared.identity_headers import MAX_ALLOW_HEAD_BYTES, encode_word, encode_words
from tests.support.gateway_kinds.table import GRPC_NAMES
from tests.support.grpc_app import GrpcApp, grpc_app, grpc_client
from tests.support.grpc_gateways import start_grpc_gateway
from tests.support.installed_gateways import require
from tests.support.issuer_over_http import served
from tests.support.issuer_simulator import FEED_TOKEN, IssuerSimulator
from tests.support.large_tokens import LARGEST_CLAIMS, largest
from tests.support.processes import free_port
from tests.support.raw_http import bearer, send
from tests.support.stack import GatewayUnderTest, Stack
from tests.support.tokens import AUDIENCE, ISSUER

pytestmark = pytest.mark.processes


@pytest.fixture(scope="module")
def other_issuer(stack: Stack) -> Iterator[IssuerSimulator]:
    """An issuer that grants anything, which the verifier trusts in place of ours."""
    with (
        served() as (issuer, url),
        stack.verifier_replaced(
            VERIFIER_ISSUER_URL=ISSUER,
            VERIFIER_AUDIENCE=AUDIENCE,
            VERIFIER_JWKS_URL=f"{url}/.well-known/jwks.json",
            VERIFIER_FEED_URL=f"{url}/revocations",
            VERIFIER_FEED_TOKEN=FEED_TOKEN,
            VERIFIER_STATE_DIR="",
        ),
    ):
        yield issuer


def longest_token(issuer: IssuerSimulator, shape: str) -> tuple[str, dict[str, Any]]:
    """Return a token of this shape as long as may be, and what it claims."""
    fill = LARGEST_CLAIMS[shape]

    def fits(size: int) -> bool:
        return len(issuer.mint(**fill(size))) <= MAX_TOKEN_BYTES

    claims = fill(largest(fits))
    token = issuer.mint(**claims)
    assert len(token) > MAX_TOKEN_BYTES - 20
    return token.decode(), claims


def expected_headers(claims: dict[str, Any]) -> dict[str, str]:
    """Return those identity headers that the claims say anything of."""
    headers = {}
    if "username" in claims:
        headers["x-auth-user"] = encode_word(claims["username"])
    if "roles" in claims:
        headers["x-auth-roles"] = encode_words(claims["roles"])
    if "scope" in claims:
        headers["x-auth-scope"] = encode_words(claims["scope"].split())
    return {name: value.decode() for name, value in headers.items()}


@pytest.mark.parametrize("shape", LARGEST_CLAIMS)
def test_identity_of_the_longest_token_reaches_the_application(
    gateway: GatewayUnderTest, other_issuer: IssuerSimulator, shape: str
) -> None:
    """R63: nginx takes a head of 4 or 8 kB by itself, and answered 503."""
    token, claims = longest_token(other_issuer, shape)
    answer = send(gateway.port, "GET", "/orders", [bearer(token)])
    assert answer.status == 200
    seen = answer.json()["headers"]
    expected = expected_headers(claims)
    assert {name: seen[name] for name in expected} == expected


@pytest.fixture(scope="module")
def grpc_server() -> Iterator[tuple[int, GrpcApp]]:
    """A gRPC server and its port: one for all gateways, which keep the port."""
    port = free_port()
    with grpc_app(port) as app:
        yield port, app


@pytest.fixture(scope="module", params=GRPC_NAMES)
def grpc_gateway(
    request: pytest.FixtureRequest, stack: Stack, grpc_server: tuple[int, GrpcApp]
) -> tuple[int, GrpcApp]:
    """The gateway's port for gRPC, and the server behind it."""
    require(request.param)
    app_port, app = grpc_server
    return start_grpc_gateway(request.param, stack, app_port, "identity"), app


@pytest.mark.parametrize("shape", LARGEST_CLAIMS)
def test_identity_of_the_longest_token_reaches_a_grpc_server(
    grpc_gateway: tuple[int, GrpcApp], other_issuer: IssuerSimulator, shape: str
) -> None:
    """R63, R64: the head is longer than one frame of HTTP/2."""
    port, app = grpc_gateway
    token, claims = longest_token(other_issuer, shape)
    credentials = [("authorization", f"Bearer {token}")]
    with grpc_client(port) as client:
        assert client.say(b"hello", metadata=credentials, timeout=30) == b"hello"
    expected = expected_headers(claims)
    assert {name: app.metadata[name] for name in expected} == expected


@pytest.mark.parametrize("config", ["gatehouse.conf", "gatehouse_grpc.conf"])
def test_nginx_has_room_for_the_longest_answer_of_the_verifier(config: str) -> None:
    """R63: the bound of shared/identity_headers.py, in the location of the check."""
    text = (CONFIGS / "nginx" / config).read_text()
    _, _, check = text.partition("location = /_gatehouse {")
    sizes = re.findall(r"^ +proxy_buffer_size (\d+)k;", check, re.MULTILINE)
    assert [int(size) * 1_024 >= MAX_ALLOW_HEAD_BYTES for size in sizes] == [True]
