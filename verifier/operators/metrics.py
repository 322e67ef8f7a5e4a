"""The Prometheus metrics; docs/metrics.md lists them.

The gate counts in plain integers, so the hot path takes no lock. `flush` adds the
differences to prometheus-client, before every rendering and once a second. With several
workers `shared/metrics/worker_metrics.py` merges the flushed values.
"""

from __future__ import annotations

from collections import Counter as Counts
from collections.abc import Callable
from typing import Final, NamedTuple

from shared.claims import OWN_ISSUER
from shared.configuration.reloading import OUTCOMES
from shared.log import dropped_lines
from shared.metrics.program_metrics import WorkerProcess, add_build_info
from shared.metrics.prometheus import Counter, Gauge, Histogram, Mode, Registry
from shared.metrics.worker_metrics import TakenSlot, WorkerMetrics
from verifier.check import gate
from verifier.check.gate import Gate
from verifier.check.trust import Trust
from verifier.disk.disk_copy import DiskCopy
from verifier.native.gateways import Gateways
from verifier.operators.check_metrics import CheckMetrics
from verifier.operators.decision_log import DecisionLog
from verifier.operators.issuer_metrics import IssuerMetrics
from verifier.operators.native_metrics import NativeMetrics
from verifier.reloading.reload import ReloadReport
from verifier.sync.canary import CanaryWatch
from verifier.sync.clock import boottime
from verifier.sync.feed import FeedFollower
from verifier.sync.keys import KeysRefresher
from verifier.sync.other_issuers import OtherIssuers
from verifier.sync.staleness import staleness_of
from verifier.wire.public_port import PublicPort

#: Seconds. A push takes milliseconds; a feed that is down takes until it is up again.
_DELAY_BUCKETS: Final = (
    *(0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5),
    *(1.0, 2.0, 5.0, 10.0, 30.0, 60.0),
)
_COPY_STATES: Final = {"lost": -1, "off": 0, "kept": 1}


class WorkerParts(NamedTuple):
    """The parts of one worker that operators look at.

    Attributes:
        gate: answers the checks.
        trust: keys and revocations in force.
        feed: follows the revocation feed.
        keys: follows the public keys of our own issuer.
        copy: the copy on disk.
        canary: measures the delay of revocations.
        decisions: the last decisions.
        others: follows the public keys of other issuers.
        gateways: that check tokens by themselves; None without any.
    """

    gate: Gate
    trust: Trust
    feed: FeedFollower
    keys: KeysRefresher
    copy: DiskCopy
    canary: CanaryWatch
    decisions: DecisionLog
    others: OtherIssuers
    gateways: Gateways | None = None


class VerifierMetrics:
    """The verifier's metrics.

    Args:
        parts: the source of the numbers.
        boottime: gives boot-time seconds.
        port: the public port; None without one.
        reloads: outcomes of reading the files again.
        slot: of this worker on the board of all workers; None when it is the only one.

    Attributes:
        together: the metrics of all workers.
    """

    def __init__(
        self,
        parts: WorkerParts,
        boottime: Callable[[], float] = boottime,
        port: PublicPort | None = None,
        reloads: ReloadReport | None = None,
        slot: TakenSlot | None = None,
    ) -> None:
        self._port = port
        self._reload_report = reloads or ReloadReport()
        self._parts = parts
        self._boottime = boottime
        self._flushed: Counts[tuple[str, ...]] = Counts()
        self._registry = Registry()
        self.together = WorkerMetrics(self._registry, "gatehouse_verifier", slot)
        compiled = "false" if gate.__file__.endswith(".py") else "true"
        add_build_info(self._registry, "gatehouse_verifier", compiled=compiled)
        worker = 0 if slot is None else slot.number
        WorkerProcess(self._registry, "gatehouse_verifier", worker)
        times = None if port is None else port.times
        CheckMetrics(self._registry, parts.gate, times)
        self._make_check_counters()
        self._make_source_counters()
        self._issuers = IssuerMetrics(
            self._registry, parts.others, parts.trust, boottime, self._failures
        )
        self._native = NativeMetrics(self._registry, parts.gateways, self._add)
        self._make_gauges()
        self._make_trust_gauges()
        for word in OUTCOMES:
            self._reloads.labels(word)

    def _make_check_counters(self) -> None:
        self._cache = Counter(
            "gatehouse_verifier_cache_total",
            "Look-ups in the cache of facts, and entries dropped from it.",
            ["outcome"],
            registry=self._registry,
        )
        self._shadow = Counter(
            "gatehouse_verifier_shadow_refusals_total",
            "Requests that shadow mode let pass; rule 0: no rule matches.",
            ["policy", "rule", "reason"],
            registry=self._registry,
        )
        self._lost_lines = Counter(
            "gatehouse_verifier_log_lines_dropped_total",
            "Log lines that standard error did not take in time.",
            registry=self._registry,
        )
        self._unlogged = Counter(
            "gatehouse_verifier_refusal_lines_suppressed_total",
            "Refusals, also of shadow mode, without a log line, past the rate of lines.",
            registry=self._registry,
        )

    def _make_source_counters(self) -> None:
        self._reloads = Counter(
            "gatehouse_verifier_reloads_total",
            "Times that one worker read its files again, by outcome.",
            ["outcome"],
            registry=self._registry,
        )
        self._failures = Counter(
            "gatehouse_verifier_sync_failures_total",
            "Failed attempts to fetch keys or feed.",
            ["source", "issuer"],
            registry=self._registry,
        )
        self._connections = Counter(
            "gatehouse_verifier_connections_refused_total",
            "Connections to the public port that were not taken, by reason.",
            ["reason"],
            registry=self._registry,
        )
        self._faults = Counter(
            "gatehouse_verifier_wire_faults_total",
            "Connections to the public port that were ended for a fault, by fault.",
            ["fault"],
            registry=self._registry,
        )
        self._canary = Histogram(
            "gatehouse_verifier_canary_delay_seconds",
            "From the issuer's synthetic revocation to its coming into force here.",
            buckets=_DELAY_BUCKETS,
            registry=self._registry,
        )

    def _make_gauges(self) -> None:
        self._open = self._gauge(
            "connections", "Open connections to the public port, all workers.", "sum"
        )
        self._cache_entries = self._gauge(
            "cache_entries", "Facts kept, all workers.", "sum"
        )
        self._cache_bytes = self._gauge(
            "cache_bytes", "Bytes kept facts take, by estimate.", "sum"
        )
        self._copy_state = self._gauge(
            "disk_copy",
            "Of the worst worker: 1 kept, 0 none wanted, -1 lost.",
            "min",
        )
        self._policies_differ = self._gauge(
            "policy_file_differs",
            "1: a worker, or its gateway, could not use the policy file as it is.",
            "max",
        )
        self._copy_bytes = self._gauge(
            "disk_copy_bytes", "Size of the disk copies, all workers.", "sum"
        )

    def _make_trust_gauges(self) -> None:
        self._age = self._gauge(
            "snapshot_age_seconds",
            "Age of the oldest worker's revocations; -1 before the first.",
            "max",
        )
        self._position = self._gauge(
            "feed_position", "Feed position the slowest worker has applied.", "min"
        )
        self._entries = self._gauge(
            "revocations", "Live revocation entries in one worker.", "max"
        )
        self._key_count = self._gauge(
            "keys", "Verification keys, in the worker with fewest.", "min"
        )
        self._staleness = self._gauge(
            "staleness",
            "Of the worst worker: 0 fresh, 1 late, 2 stale and closed.",
            "max",
        )

    def _gauge(self, name: str, text: str, mode: Mode) -> Gauge:
        return self._registry.gauge(f"gatehouse_verifier_{name}", text, mode)

    def flush(self) -> None:
        """Add the counts since the last call to prometheus-client."""
        parts = self._parts
        caches = parts.gate.caches.values()
        counts = [parts.gate.past, *(c.counts for c in caches)]
        self._add(self._cache, sum(c.hits for c in counts), "hit")
        self._add(self._cache, sum(c.misses for c in counts), "miss")
        self._add(self._cache, sum(c.evictions for c in counts), "eviction")
        for word, count in self._reload_report.outcomes.items():
            self._add(self._reloads, count, word)
        is_older = parts.gateways is not None and parts.gateways.has_older_policies
        self._policies_differ.set(bool(self._reload_report.policy_error) or is_older)
        if self._port is not None:
            self._open.set(len(self._port.connections))
            for reason, count in self._port.admission.refused.items():
                self._add(self._connections, count, reason)
            for fault, count in self._port.faults.items():
                self._add(self._faults, count, fault)
        self._add(self._lost_lines, dropped_lines())
        for key, count in parts.gate.shadow_counts.by_key.items():
            self._add(self._shadow, count, key.policy, str(key.rule), key.reason)
        logs = parts.gate.refusals, parts.gate.shadow_refusals
        self._add(self._unlogged, sum(log.suppressed for log in logs))
        self._add(self._failures, parts.feed.status.failures_total, "feed", OWN_ISSUER)
        self._add(self._failures, parts.keys.status.failures_total, "jwks", OWN_ISSUER)
        self._issuers.flush()
        self._native.flush()
        self._cache_entries.set(sum(len(cache) for cache in caches))
        self._cache_bytes.set(sum(cache.size_bytes for cache in caches))
        self._flush_trust()

    def _flush_trust(self) -> None:
        _, trust, feed, _, copy, canary, *_ = self._parts
        now, snapshot, last = self._boottime(), trust.snapshot, feed.status.last_success
        self._age.set(-1 if last is None else now - last)
        self._staleness.set(staleness_of(feed.status, snapshot.own.fresh_until, now))
        self._position.set(feed.position)
        self._entries.set(len(snapshot.own.revocations))
        self._key_count.set(len(snapshot.own.keys.keys))
        self._copy_state.set(_COPY_STATES[copy.state])
        self._copy_bytes.set(copy.size)
        for delay in canary.take_delays():
            self._canary.observe(delay)

    def _add(self, counter: Counter, total: int, *labels: str) -> None:
        # A Counter can only be incremented.
        key = (counter._name, *labels)
        series = counter.labels(*labels) if labels else counter
        series.inc(total - self._flushed[key])
        self._flushed[key] = total

    def render(self) -> bytes:
        """Return the Prometheus text form, of all workers together."""
        self.flush()
        return self.together.render()
