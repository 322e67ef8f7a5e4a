"""A connection that is kept follows its server's name, and outlives a resolver's
silence.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import httpx
import pytest

from shared.outgoing.authorities import Authorities
from shared.outgoing.connections import LOOK_EVERY, Connections, Request, resolve
from tests.support.certificates import Authority
from tests.support.clock import FakeClock
from tests.support.raw_server import RawServer, http, raw_server, saying, then_closing

HERE = "127.0.0.1"


class Resolver:
    """Answers as configured.

    Attributes:
        addresses: of every name; none: it does not answer.
        asked: how often it was asked.
    """

    def __init__(self) -> None:
        self.addresses = frozenset({HERE})
        self.asked: list[tuple[str, int]] = []

    async def __call__(self, host: str, port: int) -> frozenset[str]:
        self.asked.append((host, port))
        if not self.addresses:
            raise OSError(-3, "Temporary failure in name resolution")
        return self.addresses


class Story:
    """Kept connections to a server, a clock that stands still and a resolver."""

    def __init__(self, server: RawServer, ca_file: Path) -> None:
        self.server = server
        self.clock = FakeClock()
        self.resolver = Resolver()
        self.authorities = Authorities("VERIFIER_CA_FILE", str(ca_file))
        self.connections = Connections(
            self.authorities,
            max_connections=2,
            resolve=self.resolver,
            monotonic=self.clock.monotonic,
        )

    async def get(self, path: str = "/") -> bytes:
        """Ask, and let the look beside it come to its end."""
        request = Request("GET", self.server.url + path, {}, httpx.Timeout(5))
        async with self.connections.stream(request) as response:
            body = await response.aread()
        await self.looked()
        return body

    async def looked(self) -> None:
        """Return when no look is under way."""
        if self.connections._looking is not None:
            await asyncio.wait([self.connections._looking])


@pytest.fixture
def server() -> Iterator[RawServer]:
    with raw_server(saying(http(b"ok"))) as server:
        yield server


@pytest.fixture
async def story(server: RawServer, tmp_path: Path) -> AsyncIterator[Story]:
    path = tmp_path / "ca.pem"
    path.write_bytes(Authority().certificate)
    story = Story(server, path)
    yield story
    await story.connections.close()


async def test_a_name_that_stays_keeps_its_connection(story: Story) -> None:
    for _ in range(5):
        await story.get()
        story.clock.advance(LOOK_EVERY)
    assert story.server.connections == 1
    assert story.resolver.asked == [(HERE, story.server.port)] * 4


async def test_r59_a_name_that_moved_is_followed_though_the_old_address_answers(
    story: Story,
) -> None:
    await story.get()
    story.resolver.addresses = frozenset({"192.0.2.7"})
    await story.get()
    assert story.server.connections == 1
    story.clock.advance(LOOK_EVERY)
    await story.get()  # over the old one, while the name is looked at
    await story.get()
    assert story.server.connections == 2


async def test_one_of_several_addresses_is_as_good_as_another(story: Story) -> None:
    await story.get()
    story.resolver.addresses = frozenset({"192.0.2.7", HERE})
    story.clock.advance(LOOK_EVERY)
    await story.get()
    await story.get()
    assert story.server.connections == 1


async def test_while_no_resolver_answers_the_connection_stays(
    story: Story, caplog: pytest.LogCaptureFixture
) -> None:
    """Else a resolver that is away would close the gate while the issuer is up."""
    await story.get()
    story.resolver.addresses = frozenset()
    for _ in range(3):
        story.clock.advance(LOOK_EVERY)
        await story.get()
    assert story.server.connections == 1
    assert caplog.messages == ["connections.name_not_resolved"]
    story.resolver.addresses = frozenset({"192.0.2.7"})
    story.clock.advance(LOOK_EVERY)
    await story.get()
    await story.get()
    assert story.server.connections == 2


async def test_a_request_under_way_is_not_cut_off(story: Story) -> None:
    await story.get()
    story.clock.advance(LOOK_EVERY)
    story.resolver.addresses = frozenset({"192.0.2.7"})
    request = Request("GET", story.server.url, {}, httpx.Timeout(5))
    async with story.connections.stream(request) as response:
        await story.looked()
        await story.get()
        assert story.server.connections == 2
        assert await response.aread() == b"ok"


async def test_a_new_authority_is_for_new_connections(
    story: Story, tmp_path: Path
) -> None:
    await story.get()
    (tmp_path / "ca.pem").write_bytes(Authority("new").certificate)
    story.clock.advance(LOOK_EVERY)
    await story.get()
    await story.get()
    assert story.server.connections == 2


async def test_the_name_is_resolved_at_once_after_a_failure(
    story: Story,
) -> None:
    await story.get()
    story.server.answer = then_closing()
    with pytest.raises(httpx.RemoteProtocolError):
        await story.get()
    story.server.answer = saying(http(b"ok"))
    asked = len(story.resolver.asked)
    await story.get()
    assert len(story.resolver.asked) == asked + 1


async def test_many_failures_cause_few_looks(story: Story) -> None:
    """A hundred issuers that are away fail often, and each look asks for all names."""
    await story.get()
    story.server.answer = then_closing()
    asked = len(story.resolver.asked)
    for _ in range(10):
        with pytest.raises(httpx.RemoteProtocolError):
            await story.get()
        await story.looked()
    assert len(story.resolver.asked) == asked + 1


async def test_connections_that_are_not_used_any_more_are_closed(story: Story) -> None:
    """An issuer may name another address of its keys with each answer."""
    with raw_server(saying(http(b"ok"))) as other:
        request = Request("GET", other.url, {}, httpx.Timeout(5))
        async with story.connections.stream(request) as response:
            await response.aread()
        assert len(story.connections._pools) == 1
        for _ in range(61):
            await story.get()
            story.clock.advance(LOOK_EVERY)
        await story.get()
        assert [o.port for o in story.connections._pools] == [story.server.port]
        assert story.server.connections == 1


async def test_a_name_that_hangs_delays_no_other(
    story: Story, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("shared.outgoing.connections._RESOLVE_TIME", 0.1)
    with raw_server(saying(http(b"ok"))) as other:

        async def resolve(_host: str, port: int) -> frozenset[str]:
            if port == other.port:
                await asyncio.Event().wait()
            return frozenset({"192.0.2.7"})

        request = Request("GET", other.url, {}, httpx.Timeout(5))
        for url in (request, request._replace(url=story.server.url)):
            async with story.connections.stream(url) as response:
                await response.aread()
        story.connections._resolve = resolve
        story.clock.advance(LOOK_EVERY)
        await story.get()
        await story.get()
        # Ours has moved, and the one that hangs stays in use.
        assert story.server.connections == 2
        assert other.port in {origin.port for origin in story.connections._pools}


async def test_a_fault_of_ours_while_looking_costs_no_connection(
    story: Story, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    def crash() -> bool:
        raise ZeroDivisionError

    await story.get()
    monkeypatch.setattr(story.authorities, "renew", crash)
    story.clock.advance(LOOK_EVERY)
    assert await story.get() == b"ok"
    assert "connections.crashed" in caplog.messages
    assert await story.get() == b"ok"


async def test_a_look_that_is_under_way_ends_with_the_connections(
    story: Story,
) -> None:
    started = asyncio.Event()

    async def hang(_host: str, _port: int) -> frozenset[str]:
        started.set()
        await asyncio.Event().wait()
        raise AssertionError

    await story.get()
    story.connections._resolve = hang
    story.clock.advance(LOOK_EVERY)
    request = Request("GET", story.server.url, {}, httpx.Timeout(5))
    for _ in range(2):  # the second starts no second look
        async with story.connections.stream(request) as response:
            await response.aread()
        await started.wait()
        story.clock.advance(LOOK_EVERY)


async def test_the_systems_resolver_gives_plain_addresses() -> None:
    assert await resolve(HERE, 80) == {HERE}
    assert await resolve("::1", 80) == {"::1"}
    with pytest.raises(OSError, match=r"."):
        await resolve("gatehouse.invalid", 80)


async def test_an_answer_that_names_no_peer_is_no_reason_to_look(
    story: Story,
) -> None:
    """As of a transport that is no socket."""

    class NoSocket(httpx.AsyncBaseTransport):
        async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
            return httpx.Response(200, content=b"ok")

    await story.get()
    (pool,) = story.connections._pools.values()
    await pool.client.aclose()
    pool.client = httpx.AsyncClient(transport=NoSocket())
    pool.peers.clear()
    story.clock.advance(LOOK_EVERY)
    assert await story.get() == b"ok"
    assert story.resolver.asked == []
