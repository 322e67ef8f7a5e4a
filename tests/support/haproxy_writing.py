"""What writes into a real HAProxy, as a thread of the tests."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Coroutine, Iterable, Mapping
from pathlib import Path
from typing import Any, TypeVar

from shared.feed import EntryKind, FeedEntry
from shared.jose.verification_keys import VerificationKey
from tests.support.tokens import ISSUER
from verifier.check.trust import keys_by_id
from verifier.native.content import ContentSource, KeepingTrust
from verifier.native.haproxy.gateways import HaproxyGateways
from verifier.native.in_force import InForce
from verifier.native.terms import NativeTerms

#: Seconds without news after which HAProxy closes.
STALENESS = 4.0
#: Seconds between two pieces of news.
_BEAT = 0.25
_NEVER = 2**31
T = TypeVar("T")


class Writing:
    """The process that writes, as a thread of this one.

    Args:
        terms: of the policies.
        socket: of HAProxy's master.
        directory: that HAProxy reads.
        keys: of the issuer.
        entries: revoked so far.

    Attributes:
        terms: of the policies as they are now.
    """

    def __init__(
        self,
        terms: Mapping[str, NativeTerms],
        socket: Path,
        directory: Path,
        keys: Iterable[VerificationKey],
        entries: list[FeedEntry],
    ) -> None:
        self._trust = KeepingTrust(ISSUER)
        # Nothing of a process before this one is open any more.
        self.in_force = InForce(time.monotonic, 0.0, must_answer=True)
        self.terms = terms
        source = ContentSource(
            self._trust, self.in_force, lambda: self.terms, time.monotonic, time.time
        )
        self.gateways = HaproxyGateways(source, self.in_force, str(socket), directory)
        self._entries = entries
        self._trust.enforce(entries)
        self.trust_keys(keys)
        self._renew()
        self.in_force.reached("e", len(entries))
        self.gateways.prepare()
        self._loop = asyncio.new_event_loop()
        self._thread: threading.Thread | None = None
        self._tasks: list[asyncio.Task[None]] = []

    def trust_keys(self, keys: Iterable[VerificationKey]) -> None:
        self._trust.trust_keys(ISSUER, keys_by_id(keys), 1e9)

    def start(self) -> None:
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """End without any last word."""

        async def end() -> None:
            for task in self._tasks:
                task.cancel()

        assert self._thread is not None
        self.call(end())
        self._thread.join()

    def _run(self) -> None:
        async def whole() -> None:
            self._tasks = [
                asyncio.create_task(self.gateways.run()),
                asyncio.create_task(self._beat()),
            ]
            await asyncio.wait(self._tasks)

        self._loop.run_until_complete(whole())
        self._loop.run_until_complete(asyncio.sleep(0.05))
        self._loop.close()

    async def _beat(self) -> None:
        while True:
            self._renew()
            await asyncio.sleep(_BEAT)

    def _renew(self) -> None:
        self._trust.renew(time.monotonic() + STALENESS)

    def call(self, coroutine: Coroutine[Any, Any, T]) -> T:
        """Return what a coroutine returns in the thread."""
        return asyncio.run_coroutine_threadsafe(coroutine, self._loop).result(30)

    def revoke(self, kind: EntryKind, key: str, generation: int = 0) -> int:
        """Put an entry into the feed; return its position."""

        async def act() -> int:
            entry = FeedEntry(len(self._entries) + 1, kind, key, generation, _NEVER)
            self._entries.append(entry)
            self._trust.enforce([entry])
            self.in_force.reached("e", len(self._entries))
            return len(self._entries)

        return self.call(act())

    def is_confirmed(self, position: int, seconds: float = 20.0) -> bool:
        """Return whether the position is in force everywhere within that time."""

        async def act() -> bool:
            await self.in_force.wait("e", position, seconds)
            return self.in_force.position("e") >= position

        return self.call(act())

    def confirm(self, kind: EntryKind, key: str, generation: int = 0) -> None:
        """Revoke, and return when that is in force everywhere."""
        assert self.is_confirmed(self.revoke(kind, key, generation))
