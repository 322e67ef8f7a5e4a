"""The public port serves resource metadata, and nothing else beside checks."""

from __future__ import annotations

from collections.abc import AsyncIterator

import orjson
import pytest

from tests.support.clock import FakeClock
from tests.support.gatehouse_verifier import TOKEN_POLICY, SimulatedVerifier
from tests.support.issuer_simulator import IssuerSimulator
from tests.support.served_wire import CLOSE, Wire, a_check, statuses_of
from tests.support.verifier_server import EDGES, serving
from verifier.check.policy import PolicyBook
from verifier.policies.document import parse_policies

METADATA = """
[policies.mcp.resource_metadata]
resource = "https://mcp.example.com/"
"""
DOCUMENT = b"/resource-metadata/mcp"


@pytest.fixture(params=EDGES)
async def mcp(request: pytest.FixtureRequest) -> AsyncIterator[Wire]:
    clock = FakeClock()
    issuer = IssuerSimulator(clock)
    verifier = SimulatedVerifier(clock, issuer, policies=METADATA)
    await verifier.sync()
    async with serving(verifier, request.param) as server:
        yield Wire(server, verifier, issuer.mint())


async def test_public_port_serves_resource_metadata(mcp: Wire) -> None:
    """RFC 9728, section 3.2; with and without a good token, also while closed."""
    for token in (None, mcp.token, b"x"):
        answer = await mcp.server.talk(a_check(token, CLOSE, start=b"GET " + DOCUMENT))
        head, _, body = answer.partition(b"\r\n\r\n")
        assert head.startswith(b"HTTP/1.1 200 ")
        assert b"content-type: application/json\r\n" in head.lower()
        assert b"x-auth-" not in head.lower()
        assert orjson.loads(body)["resource"] == "https://mcp.example.com/"


async def test_answers_around_a_document_are_in_order(mcp: Wire) -> None:
    requests = [
        a_check(mcp.token),
        a_check(None, start=b"HEAD " + DOCUMENT),
        a_check(None, start=b"GET " + DOCUMENT),
        a_check(None, start=b"OPTIONS " + DOCUMENT),
        a_check(mcp.token, CLOSE),
    ]
    answers = await mcp.server.talk(b"".join(requests))
    assert statuses_of(answers) == [200] * 5
    # One for GET and one for OPTIONS, none for HEAD.
    assert answers.count(b"authorization_servers") == 2


@pytest.mark.parametrize(
    "start",
    [
        b"POST " + DOCUMENT,
        b"GET " + DOCUMENT + b"?x",
        b"GET " + DOCUMENT + b"/",
        b"GET " + DOCUMENT + b"/../mcp",
        b"GET /resource-metadata/default",
        b"GET /resource-metadata/",
        b"GET /resource-metadata",
        b"GET /x" + DOCUMENT,
        b"GET /resource-metadata/%6dcp",
    ],
)
async def test_nothing_else_is_served(mcp: Wire, start: bytes) -> None:
    """R9: 200 is for a document at its exact path, and for an allow."""
    assert await mcp.statuses(a_check(mcp.token, CLOSE, start=start)) == [404]


async def test_document_follows_a_reload(mcp: Wire) -> None:
    verifier, check = mcp.verifier, a_check(None, start=b"GET " + DOCUMENT)
    reader, writer = await mcp.server.connect()
    writer.write(check)
    assert b"200" in await reader.readline()
    verifier.gate.adopt(PolicyBook(parse_policies("", TOKEN_POLICY)))
    writer.write(check)
    await reader.readuntil(b"HTTP/1.1 404")
    writer.close()
