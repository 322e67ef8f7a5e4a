"""A name that hangs in the resolver holds up no other (R67)."""

from __future__ import annotations

import asyncio
import socket
import threading
from collections.abc import Iterator

import pytest

from shared.outgoing.names import Lookups, resolve_apart

#: More than any pool of threads for look-ups has.
MANY = 100


class Resolver:
    """Resolves `good` at once, and other names when it is released."""

    def __init__(self) -> None:
        self.asked: list[str] = []
        self.released = threading.Event()

    def getaddrinfo(self, host: str, *_: object) -> list[object]:
        self.asked.append(host)
        if host != "good":
            self.released.wait(10)
            raise socket.gaierror(socket.EAI_AGAIN, "no answer")
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", ("192.0.2.1", 443))]


@pytest.fixture
def resolver(monkeypatch: pytest.MonkeyPatch) -> Iterator[Resolver]:
    resolver = Resolver()
    monkeypatch.setattr("socket.getaddrinfo", resolver.getaddrinfo)
    yield resolver
    resolver.released.set()


async def test_names_that_hang_hold_up_no_other(resolver: Resolver) -> None:
    resolve_apart(asyncio.get_running_loop())
    loop = asyncio.get_running_loop()
    hanging = [
        asyncio.create_task(loop.getaddrinfo(f"hangs-{i}", 443)) for i in range(MANY)
    ]
    found = await asyncio.wait_for(loop.getaddrinfo("good", 443), 5)
    assert found[0][4] == ("192.0.2.1", 443)
    assert not any(task.done() for task in hanging)
    resolver.released.set()
    outcomes = await asyncio.gather(*hanging, return_exceptions=True)
    assert {type(outcome) for outcome in outcomes} == {socket.gaierror}


async def test_same_question_waits_for_the_same_answer(resolver: Resolver) -> None:
    lookups = Lookups()
    for _ in range(5):
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(lookups.getaddrinfo("hangs", 443), 0.01)
    assert resolver.asked == ["hangs"]
    waiting = asyncio.create_task(lookups.getaddrinfo("hangs", 443))
    await asyncio.sleep(0)
    resolver.released.set()
    with pytest.raises(socket.gaierror):
        await waiting
    # It is over, so the next one is another look-up.
    with pytest.raises(socket.gaierror):
        await lookups.getaddrinfo("hangs", 443)
    assert resolver.asked == ["hangs"] * 2
