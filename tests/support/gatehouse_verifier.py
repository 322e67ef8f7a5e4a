"""A verifier in one process, on a clock that stands still, fed by the simulator."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NoReturn

from shared.feed import FeedEntry
from shared.jose.verification_keys import VerificationKey
from tests.support.clock import FakeClock
from tests.support.gate_counts import counts_of, forget_counts
from tests.support.gate_dependencies import gate_dependencies
from tests.support.issuer_simulator import (
    FEED_TOKEN,
    FEED_URL,
    JWKS_URL,
    IssuerSimulator,
)
from tests.support.tokens import AUDIENCE, ISSUER
from verifier.check.answers import Answer
from verifier.check.cache import FactCache
from verifier.check.forward_auth import PlainCheckRequest
from verifier.check.gate import Gate
from verifier.check.policy import PolicyBook, TokenPolicy
from verifier.check.trust import KeySet, Trust
from verifier.disk.copy_file import Identity
from verifier.disk.copy_format import derive_key
from verifier.disk.disk_copy import DiskCopy
from verifier.operators.decision_log import DecisionBoard, DecisionLog
from verifier.operators.metrics import WorkerParts
from verifier.policies.document import parse_policies
from verifier.sync.canary import CanaryWatch
from verifier.sync.cold_start import AgeLimits, ColdStart
from verifier.sync.feed import FeedFollower, FeedSource
from verifier.sync.keys import KeysRefresher, own_keys
from verifier.sync.other_issuers import OtherIssuers, OtherIssuersMeans
from verifier.sync.sync_tasks import TaskTiming

TOKEN_POLICY = TokenPolicy.own(ISSUER, AUDIENCE)


class SimulatedVerifier:
    """The product's own gate, cache and sync, with only network and time simulated."""

    def __init__(
        self,
        clock: FakeClock,
        issuer: IssuerSimulator,
        *,
        policies: str = "",
        cache_entries: int = 1_000,
        max_staleness: float = 30,
        keys_max_age: float = 86_400,
        follower_id: str = "0b7c9a1e-0000-4000-8000-000000000001",
        boot: str = "one boot",
        refusal_log_rate: int = 0,
        has_gateways: bool = False,
    ) -> None:
        self.clock = clock
        self.issuer = issuer
        self.trust = Trust(ISSUER)
        source = FeedSource(FEED_URL, FEED_TOKEN, ISSUER, follower_id, max_staleness)
        identity = Identity(derive_key(FEED_TOKEN), ISSUER, follower_id, boot)
        self.copy = DiskCopy(
            identity,
            max_staleness,
            clock.monotonic,
            clock.now,
            has_gateways=has_gateways,
        )
        self.canary = CanaryWatch(clock.now)
        self.feed = FeedFollower(
            source,
            issuer.fetch,
            self.trust,
            copy=self.copy,
            on_entries=self._observe,
        )
        self.keys = KeysRefresher(
            own_keys(ISSUER, "own", JWKS_URL),
            issuer.fetch,
            self.trust,
            keys_max_age=keys_max_age,
            copy=self.copy,
        )
        self.others = OtherIssuers(
            OtherIssuersMeans(
                trust=self.trust,
                fetch=issuer.fetch,
                keys_max_age=keys_max_age,
                boottime=clock.monotonic,
                now=clock.now,
                timing=TaskTiming(asyncio.sleep, lambda: 1.0),
                directory=None,
                identity=lambda: identity,
            )
        )
        self.limits = AgeLimits(max_staleness, keys_max_age, clock.monotonic, clock.now)
        self.key_requests = 0
        self.decisions = DecisionLog(DecisionBoard(1), 0, self.feed)
        self.policies = PolicyBook(parse_policies(policies, TOKEN_POLICY))
        self.gate = Gate(
            self.policies,
            gate_dependencies(
                self.trust,
                clock.now,
                clock.monotonic,
                log_rate=refusal_log_rate,
                request_keys=self._request_keys,
                record=self.decisions.record,
            ),
            lambda: FactCache(max_entries=cache_entries, max_bytes=1 << 30),
        )

    @property
    def parts(self) -> WorkerParts:
        """The parts that the metrics and the operators' port show."""
        return WorkerParts(
            self.gate,
            self.trust,
            self.feed,
            self.keys,
            self.copy,
            self.canary,
            self.decisions,
            self.others,
        )

    async def start_from(self, directory: Path, *, workers: int = 1) -> None:
        """Start from the disk copies in `directory`, as a process does first."""
        await ColdStart(directory, self.copy, workers, self.limits).run(
            self.trust, self.feed
        )

    def _observe(self, entries: Sequence[FeedEntry]) -> None:
        self.canary.observe(entries)
        self.keys.observe(entries)

    def _request_keys(self, _policy: TokenPolicy) -> None:
        self.key_requests += 1
        self.keys.request(self.clock.monotonic())

    async def sync(self) -> None:
        """Fetch keys and feed until there is no news."""
        await self.keys.step()
        await self.feed.step()
        while self.feed.position < self.feed.head:
            await self.feed.step()

    def check(
        self,
        token: bytes | None,
        *,
        target: bytes = b"/verify/nginx",
        method: bytes = b"GET",
        headers: Sequence[tuple[bytes, bytes]] = (),
        peer_is_trusted: bool = True,
    ) -> Answer:
        """Ask the gate as a gateway would."""
        all_headers = list(headers)
        if token is not None:
            all_headers.append((b"authorization", b"Bearer " + token))
        return self.gate.answer(
            PlainCheckRequest(method, target, all_headers, peer_is_trusted)
        )

    def last_reason(self) -> str:
        """Return the one reason counted since the last call; empty for an allow."""
        reasons = [str(r) for r, n in counts_of(self.gate).items() for _ in range(n)]
        forget_counts(self.gate)
        assert len(reasons) == 1, reasons
        return reasons[0]


def unstarted(**options: Any) -> SimulatedVerifier:
    """Return a verifier that has fetched nothing yet, beside an issuer of its own."""
    clock = FakeClock()
    return SimulatedVerifier(clock, IssuerSimulator(clock), **options)


async def started(**options: Any) -> SimulatedVerifier:
    """Return a verifier that has its keys and its feed."""
    verifier = unstarted(**options)
    await verifier.sync()
    return verifier


def broken_key_set(error: Exception) -> KeySet:
    """Return a key set in which every look-up raises the error."""

    class BrokenKeys(dict[str, VerificationKey]):
        def get(self, *_: object) -> NoReturn:  # type: ignore[override]
            raise error

        def __contains__(self, _: object) -> NoReturn:
            raise error

    return KeySet(BrokenKeys(), "broken")


async def is_requested(keys: KeysRefresher) -> bool:
    """Return whether a refresh of the keys was requested, and clear the request."""
    task = asyncio.create_task(keys.wait(1_000_000))
    for _ in range(10):
        await asyncio.sleep(0)
    was_wished = task.done()
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
    return was_wished
