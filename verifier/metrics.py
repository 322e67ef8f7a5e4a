"""What operators see in Prometheus. Every metric is in docs/metrics.md.

The gate counts in plain integers; `flush` moves the differences into prometheus-client,
on every scrape and once a second, so that the hot path touches no lock and no file. With
several workers prometheus-client's multiprocess mode adds up what each has flushed.
"""

from __future__ import annotations

import time
from collections import Counter as Counts

from prometheus_client import CollectorRegistry, Counter, Gauge

from shared import worker_metrics
from verifier.denials import DenyReason
from verifier.gate import Gate
from verifier.sync import FeedFollower, KeysRefresher, TrustHolder


class VerifierMetrics:
    """The verifier's metrics and where their numbers come from."""

    def __init__(
        self, gate: Gate, trust: TrustHolder, feed: FeedFollower, keys: KeysRefresher
    ) -> None:
        self._gate, self._trust, self._feed, self._keys = gate, trust, feed, keys
        self._flushed: Counts[tuple[str, ...]] = Counts()
        self._registry = CollectorRegistry()
        self._checks = Counter(
            "gatehouse_verifier_checks_total",
            "Answers to gateways, by decision and reason.",
            ["decision", "reason"],
            registry=self._registry,
        )
        self._cache = Counter(
            "gatehouse_verifier_cache_total",
            "Look-ups in the cache of facts, and entries dropped from it.",
            ["outcome"],
            registry=self._registry,
        )
        self._failures = Counter(
            "gatehouse_verifier_sync_failures_total",
            "Failed attempts to fetch keys or feed.",
            ["source"],
            registry=self._registry,
        )
        self._cache_entries = self._gauge(
            "cache_entries", "Facts kept, all workers.", "livesum"
        )
        self._cache_bytes = self._gauge(
            "cache_bytes", "Bytes kept facts take, by estimate.", "livesum"
        )
        self._age = self._gauge(
            "snapshot_age_seconds",
            "Age of the oldest worker's revocations; -1 before the first.",
            "livemax",
        )
        self._position = self._gauge(
            "feed_position", "Feed position the slowest worker has applied.", "livemin"
        )
        self._entries = self._gauge(
            "revocations", "Live revocation entries in one worker.", "livemax"
        )
        self._key_count = self._gauge(
            "keys", "Verification keys, in the worker with fewest.", "livemin"
        )
        for reason in DenyReason:
            self._checks.labels("deny", reason.value)
        self._checks.labels("allow", "")

    def _gauge(self, name: str, text: str, mode: str) -> Gauge:
        full_name = f"gatehouse_verifier_{name}"
        return Gauge(
            full_name,
            text,
            registry=self._registry,
            multiprocess_mode=mode,  # type: ignore[arg-type]  # a literal of theirs
        )

    def flush(self) -> None:
        """Move what was counted since the last time into prometheus-client."""
        for reason, count in self._gate.counts.items():
            decision = "deny" if reason else "allow"
            self._add(self._checks, count, decision, reason)
        caches = self._gate.caches.values()
        self._add(self._cache, sum(c.counts.hits for c in caches), "hit")
        self._add(self._cache, sum(c.counts.misses for c in caches), "miss")
        self._add(self._cache, sum(c.counts.evictions for c in caches), "eviction")
        self._add(self._failures, self._feed.status.failures_total, "feed")
        self._add(self._failures, self._keys.status.failures_total, "jwks")
        self._cache_entries.set(sum(len(cache) for cache in caches))
        self._cache_bytes.set(sum(cache.size_bytes for cache in caches))
        last = self._feed.status.last_success
        self._age.set(-1 if last is None else time.monotonic() - last)
        self._position.set(self._feed.position)
        self._entries.set(len(self._trust.snapshot.revocations))
        self._key_count.set(len(self._trust.snapshot.keys.keys))

    def _add(self, counter: Counter, total: int, *labels: str) -> None:
        # a Counter in multiprocess mode has no way to be set, only to be raised
        key = (counter._name, *labels)
        counter.labels(*labels).inc(total - self._flushed[key])
        self._flushed[key] = total

    def render(self) -> bytes:
        """Return the Prometheus text form, summed over all workers."""
        self.flush()
        return worker_metrics.render(self._registry)
