"""Composes the parts of one worker, and the tasks that keep its trust up to date."""

from __future__ import annotations

import asyncio
import logging
import random
import time
import uuid
from collections.abc import Callable, Coroutine, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from shared.claims import OWN_ISSUER
from shared.feed import FeedEntry
from shared.steady_time import SteadyTime
from verifier.check.cache import FactCache
from verifier.check.gate import Gate, GateDependencies
from verifier.check.policy import PolicyBook, TokenPolicy
from verifier.check.refusal_log import RefusalLog
from verifier.check.trust import Trust
from verifier.disk.compaction import keep_compact
from verifier.disk.copy_file import Identity
from verifier.disk.copy_format import derive_key
from verifier.disk.disk_copy import DiskCopy
from verifier.disk.state_directory import OWN_NAME
from verifier.native.content import ContentSource, KeepingTrust
from verifier.native.gateways import HAPROXY, Gateways, check_kind, gateway_writers
from verifier.native.in_force import InForce
from verifier.native.terms import NativePolicies
from verifier.operators.decision_log import DecisionBoard, DecisionLog
from verifier.operators.metrics import WorkerParts
from verifier.operators.refusal_spans import trace_refusals
from verifier.reloading.files import Files
from verifier.settings import VerifierSettings
from verifier.sync.canary import CanaryWatch
from verifier.sync.clock import boot_identity, boottime
from verifier.sync.cold_start import AgeLimits, ColdStart
from verifier.sync.feed import FeedFollower, FeedSource
from verifier.sync.fetch import HttpSource
from verifier.sync.keys import KeysRefresher, own_keys
from verifier.sync.other_issuers import OtherIssuers, OtherIssuersMeans
from verifier.sync.source_report import SourceReport, feed_source, keys_source
from verifier.sync.sync_tasks import TaskTiming, follow, new_breaker, prune

if TYPE_CHECKING:
    from shared.tracing.exporting import Spans

_LOG: Final = logging.getLogger(__name__)


def compose(
    files: Files,
    source: HttpSource,
    decisions: DecisionBoard,
    slot: int,
    spans: Spans | None = None,
    native: str = "",
) -> WorkerParts:
    """Return the parts of one worker.

    Args:
        files: settings, policies and certificate authorities.
        source: sends requests to the issuer.
        decisions: the last decisions of all workers.
        slot: of this worker.
        spans: of this process; None unless traces are asked for.
        native: the kind of gateways that check tokens by themselves; empty for none.

    Raises:
        InexpressibleError: a native policy asks what such a gateway cannot check.
    """
    settings = files.settings
    gateways: Gateways | None = None
    trust = Trust(settings.issuer_url)
    if native:
        trust = KeepingTrust(settings.issuer_url)
        gateways = _compose_gateways(native, settings, trust, lambda: files.policies)
    canary = CanaryWatch(time.time)
    follower_id = str(uuid.uuid4())
    copy = _compose_disk_copy(settings, follower_id, has_gateways=bool(native))
    feed = FeedFollower(
        _describe_feed(files, follower_id),
        source.fetch,
        trust,
        copy=copy,
        on_entries=lambda entries: observe(entries),
        applied=None if gateways is None else gateways.in_force,
    )
    keys = _compose_own_keys(settings, trust, source, copy)
    others = _compose_others(settings, trust, source, copy)
    others.follow(files.policies.issuers)

    def observe(entries: Sequence[FeedEntry]) -> None:
        canary.observe(entries)
        keys.observe(entries)

    log = DecisionLog(decisions, slot, feed)
    gate = _compose_gate(files, trust, _KeyRequests(keys, others), log, spans)
    return WorkerParts(gate, trust, feed, keys, copy, canary, log, others, gateways)


class _KeyRequests(NamedTuple):
    """Requests keys when a token names an unknown one."""

    own: KeysRefresher
    others: OtherIssuers

    def request(self, policy: TokenPolicy) -> None:
        """Request a refresh of the keys of each issuer that a policy accepts."""
        if policy.accepts_own:
            self.own.request(boottime())
        self.others.request(policy)


def _compose_gate(
    files: Files,
    trust: Trust,
    key_requests: _KeyRequests,
    decisions: DecisionLog,
    spans: Spans | None,
) -> Gate:
    settings = files.settings
    trace = trace_refusals(spans) if spans else None
    rate, monotonic = settings.refusal_log_rate, time.monotonic()
    return Gate(
        files.policies,
        GateDependencies(
            trust=trust,
            now=time.time,
            boottime=boottime,
            request_keys=key_requests.request,
            refusals=RefusalLog(rate, trust, monotonic, trace=trace),
            shadow_refusals=RefusalLog(
                rate, trust, monotonic, "gate.shadow_refused", trace
            ),
            record=decisions.record,
        ),
        lambda: FactCache(
            max_entries=settings.cache_entries, max_bytes=settings.cache_bytes
        ),
    )


def _compose_gateways(
    kind: str,
    settings: VerifierSettings,
    trust: KeepingTrust,
    policies: Callable[[], PolicyBook],
) -> Gateways:
    in_force = InForce(boottime, settings.max_staleness, must_answer=kind == HAPROXY)
    check = partial(check_kind, kind)
    native = NativePolicies(settings.native_policies, policies, check)
    source = ContentSource(trust, in_force, native.terms, boottime, time.time)
    writers = gateway_writers(kind, settings, source, in_force)
    return Gateways(kind, in_force, writers, native)


def _compose_disk_copy(
    settings: VerifierSettings, follower_id: str, *, has_gateways: bool
) -> DiskCopy:
    key = derive_key(settings.feed_token.get_secret_value())
    identity = Identity(key, settings.issuer_url, follower_id, boot_identity())
    return DiskCopy(
        identity,
        settings.max_staleness,
        boottime,
        time.time,
        has_gateways=has_gateways,
    )


def _compose_own_keys(
    settings: VerifierSettings, trust: Trust, source: HttpSource, copy: DiskCopy
) -> KeysRefresher:
    follower_id = copy.identity.follower
    return KeysRefresher(
        own_keys(settings.issuer_url, OWN_ISSUER, settings.jwks_url, follower_id),
        source.fetch,
        trust,
        keys_max_age=settings.keys_max_age,
        copy=copy,
    )


def _compose_others(
    settings: VerifierSettings, trust: Trust, source: HttpSource, copy: DiskCopy
) -> OtherIssuers:
    state_dir = settings.state_dir
    means = OtherIssuersMeans(
        trust=trust,
        fetch=source.fetch,
        keys_max_age=settings.keys_max_age,
        boottime=boottime,
        now=time.time,
        timing=_new_timing(),
        directory=Path(state_dir) / OWN_NAME if state_dir else None,
        identity=lambda: copy.identity,
    )
    return OtherIssuers(means)


def _describe_feed(files: Files, follower_id: str) -> FeedSource:
    settings = files.settings
    return FeedSource(
        url=settings.feed_url,
        token=settings.feed_token.get_secret_value(),
        issuer=settings.issuer_url,
        follower_id=follower_id,
        max_staleness=settings.max_staleness,
        allows_stale=files.policies.allows_stale,
    )


class TrustTasks:
    """The tasks that fill and renew one worker's trust.

    Args:
        files: settings and policies; the settings may be renewed meanwhile.
        parts: of this worker.
    """

    def __init__(self, files: Files, parts: WorkerParts) -> None:
        self._files = files
        self._parts = parts
        self._has_started = asyncio.Event()

    @property
    def has_started(self) -> bool:
        """Whether the disk copies were read; the sources are followed from then on."""
        return self._has_started.is_set()

    def coroutines(self) -> list[Coroutine[Any, Any, None]]:
        """Return one coroutine per task; each runs until it is cancelled."""
        prune_time = SteadyTime(time.time, boottime).now
        return [
            self._start_cold(),
            self._follow_feed(),
            self._follow_keys(),
            self._follow_others(),
            self._tend_copy(prune_time),
            prune(self._parts.trust, prune_time, asyncio.sleep),
        ]

    async def _start_cold(self) -> None:
        """Read the disk copies, then let the other tasks follow the two sources."""
        settings, copy = self._files.settings, self._parts.copy
        limits = AgeLimits(
            settings.max_staleness, settings.keys_max_age, boottime, time.time
        )
        try:
            if settings.state_dir:
                directory = Path(settings.state_dir)
                start = ColdStart(directory, copy, settings.workers, limits)
                await start.run(self._parts.trust, self._parts.feed)
        except Exception as error:
            # A copy written by a faulty program must not stop this one from following
            # the issuer.
            _LOG.exception("copy.unreadable")
            copy.lose(error)
        self._has_started.set()

    async def _follow_feed(self) -> None:
        feed = self._parts.feed

        async def rest() -> None:
            await feed.pause(asyncio.sleep)

        await self._has_started.wait()
        report = SourceReport(feed_source(self._files.settings), boottime)
        await follow(feed, new_breaker("feed"), _new_timing(), rest, report)

    async def _follow_keys(self) -> None:
        keys = self._parts.keys

        async def rest() -> None:
            await keys.wait(keys.period)

        await self._has_started.wait()
        report = SourceReport(keys_source(self._files.settings), boottime)
        await follow(keys, new_breaker("jwks"), _new_timing(), rest, report)

    async def _follow_others(self) -> None:
        await self._has_started.wait()
        await self._parts.others.run()

    async def _tend_copy(self, now: Callable[[], int]) -> None:
        trust = self._parts.trust
        await self._has_started.wait()
        await keep_compact(
            self._parts.copy,
            lambda: len(trust.snapshot.own.revocations),
            now,
            asyncio.sleep,
        )


def _new_timing() -> TaskTiming:
    return TaskTiming(asyncio.sleep, random.random)
