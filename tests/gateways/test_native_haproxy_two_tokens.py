"""A real HAProxy whose frontend and backend check a token each, in one request."""

from __future__ import annotations

import time
from collections.abc import Iterator

import pytest

from tests.support.installed_gateways import require
from tests.support.native_haproxy import running_haproxy
from tests.support.native_tokens import CASES, our_token
from tests.support.processes import free_port
from tests.support.raw_http import RawAnswer, bearer, send
from tests.support.tokens import AUDIENCE, ISSUER, signing_key
from verifier.native.terms import NativeTerms

pytestmark = pytest.mark.processes

PLAIN = NativeTerms("default", ISSUER, AUDIENCE, 5, 3_600, (), (), (), (), ())
SECOND = PLAIN._replace(policy="second")
#: The second token comes in a header of its own, and is checked by a backend.
SECTIONS = """
frontend two from gatehouse-default
    bind 127.0.0.1:{port}
    timeout client 20s
    timeout http-request 20s
    http-request set-header Authorization %[req.hdr(second)]
    default_backend two
backend two from gatehouse-second
    timeout connect 5s
    timeout server 20s
    http-request return status 200 hdr User %[req.hdr(x-auth-user)]
"""


@pytest.fixture(scope="module")
def port() -> Iterator[int]:
    """Where a request is checked twice."""
    require("haproxy")
    port = free_port()
    with running_haproxy([PLAIN, SECOND], [signing_key()], SECTIONS.format(port=port)):
        yield port


def ask(port: int, second: str) -> RawAnswer:
    lines = [bearer(our_token()), ("Second", f"Bearer {second}")]
    return send(port, headers=lines)


def test_second_token_names_its_own_key(port: int) -> None:
    """What the first one has left is not the key of a header that nobody knows."""
    assert ask(port, our_token()).status == 200
    unknown = CASES["unknown kid"](int(time.time()))
    assert ask(port, unknown.decode()).status == 401


def test_second_token_without_a_user_has_none(port: int) -> None:
    assert ask(port, our_token()).header("User") == "alice"
    assert not ask(port, our_token(username=None)).header("User")
