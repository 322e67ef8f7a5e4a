"""What is written into a HAProxy without traffic, on a clock that a test moves."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Mapping
from contextlib import asynccontextmanager
from copy import copy
from pathlib import Path
from typing import Any

from shared.feed import GENERATION_KINDS, EntryKind, FeedEntry
from tests.support.clock import FakeClock
from tests.support.fake_haproxy import FakeHaproxy, FakeWorker
from tests.support.processes import eventually
from tests.support.tokens import AUDIENCE, ISSUER, TestKey, signing_key
from verifier.check.trust import key_set
from verifier.native.content import Content, ContentSource, KeepingTrust
from verifier.native.haproxy.directory import HaproxyDirectory
from verifier.native.haproxy.gateways import HaproxyGateways
from verifier.native.haproxy.process import HaproxyProcess
from verifier.native.in_force import InForce
from verifier.native.terms import NativeTerms

STALENESS = 30
TERMS = NativeTerms("default", ISSUER, AUDIENCE, 5, 3_600, (), (), (), (), ())
NEVER = 2**31
ReadTerms = Callable[[], Mapping[str, NativeTerms]]


class TrustedSite:
    """What a HAProxy is to have, long after the process before this one.

    Args:
        read_terms: gives the terms of the policies; none: `terms` has them.

    Attributes:
        terms: of the policies, by name.
        position: of the feed.
    """

    def __init__(self, read_terms: ReadTerms | None = None) -> None:
        self.clock = FakeClock()
        self.trust = KeepingTrust(ISSUER)
        self.in_force = InForce(self.clock.monotonic, STALENESS, must_answer=True)
        self.position = 0
        self.in_force.reached("e", self.position)
        self.clock.advance(STALENESS)
        self.terms = {"default": TERMS}
        self.source = ContentSource(
            self.trust,
            self.in_force,
            read_terms or (lambda: self.terms),
            self.clock.monotonic,
            self.clock.now,
        )
        self.trust_keys(signing_key())
        self.renew()

    def trust_keys(self, *keys: TestKey) -> None:
        self.trust.trust_keys(ISSUER, key_set(key.jwk for key in keys), 1e9)

    def renew(self) -> None:
        """Have news now: a window begins."""
        self.trust.renew(self.clock.monotonic() + STALENESS)

    def content(self) -> Content:
        return self.source.take()

    def revoke(self, kind: EntryKind, key: str, generation: int = 1) -> None:
        """Revoke something: the feed is one position further."""
        generation = generation if kind in GENERATION_KINDS else 0
        self.trust.enforce([FeedEntry(1, kind, key, generation, NEVER)])
        self.position += 1
        self.in_force.reached("e", self.position)


class ProcessSite(TrustedSite):
    """A HAProxy with one worker that is written into."""

    def __init__(self, folder: Path) -> None:
        super().__init__()
        self.directory = HaproxyDirectory(folder / "haproxy")
        self.directory.prepare(self.content().keys, self.terms)
        self.haproxy = FakeHaproxy(folder / "m", self.directory.path)
        self.process = HaproxyProcess(
            self.worker.pid, str(folder / "m"), self.directory
        )

    def restarted(self) -> ProcessSite:
        """Return the process after this one, without entries and without news."""
        new = copy(self)
        TrustedSite.__init__(new)
        new.clock.advance(STALENESS)
        new.directory = HaproxyDirectory(self.directory.path)
        new.directory.prepare(new.content().keys, new.terms)
        new.process = HaproxyProcess(
            self.worker.pid, str(self.haproxy.socket), new.directory
        )
        return new

    @property
    def worker(self) -> FakeWorker:
        return self.haproxy.current

    async def write(self) -> None:
        await self.process.write(self.content())

    def play(self, story: Coroutine[Any, Any, None]) -> None:
        """Run a story while the master listens."""

        async def whole() -> None:
            await self.haproxy.start()
            try:
                await story
            finally:
                self.process.close()
                await self.haproxy.stop()

        asyncio.run(whole())


class GatewaysSite(TrustedSite):
    """A HAProxy, and what finds its workers and writes into each."""

    def __init__(self, folder: Path, read_terms: ReadTerms | None = None) -> None:
        super().__init__(read_terms)
        self.path = folder / "haproxy"
        self.gateways = HaproxyGateways(
            self.source, self.in_force, str(folder / "m"), self.path
        )
        self.gateways.prepare()
        self.haproxy = FakeHaproxy(folder / "m", self.path)

    def revoke_session(self, sid: str) -> None:
        self.revoke(EntryKind.SID, sid)

    @asynccontextmanager
    async def running(self) -> Any:
        await self.haproxy.start()
        task = asyncio.create_task(self.gateways.run())
        try:
            yield
        finally:
            task.cancel()
            await asyncio.wait([task])
            await self.haproxy.stop()

    async def open(self) -> None:
        """Revoke something, and return when that is in force in one worker."""
        self.revoke_session("a")
        await until(lambda: len(self.gateways.writers) == 1)
        await self.in_force_everywhere()

    async def in_force_everywhere(self) -> None:
        await until(lambda: self.in_force.position("e") == self.position)


async def until(condition: Callable[[], bool]) -> None:
    """Return when the condition holds."""

    async def holds() -> bool:
        return condition()

    await eventually(holds)
