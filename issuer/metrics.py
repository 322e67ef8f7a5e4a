"""The metrics of the issuer; `docs/metrics.md` lists them.

With several workers the numbers are merged by `shared/metrics/worker_metrics.py`.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from issuer.storage.db import PoolMeasure
from shared.metrics.program_metrics import WorkerProcess, add_build_info
from shared.metrics.prometheus import Counter, Histogram, Registry
from shared.metrics.worker_metrics import TakenSlot, WorkerMetrics

METHODS: Final = frozenset({"DELETE", "GET", "HEAD", "OPTIONS", "PATCH", "POST", "PUT"})
#: What becomes of an attempt to deliver a security event.
_DELIVERIES: Final = ("delivered", "retried", "refused", "given_up")
#: Long polls take up to a minute, logins a fraction of a second.
_SECONDS: Final = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 10.0, 60.0)


class IssuerMetrics:
    """The issuer's counters and gauges, in a registry of their own.

    Args:
        slot: this worker's slot on the board of all workers; None when it is the only
            worker.

    Attributes:
        together: renders them with those of the other workers.
    """

    def __init__(self, slot: TakenSlot | None = None) -> None:
        self._registry = Registry()
        add_build_info(self._registry, "gatehouse_issuer")
        worker = 0 if slot is None else slot.number
        WorkerProcess(self._registry, "gatehouse_issuer", worker)
        self.together = WorkerMetrics(self._registry, "gatehouse_issuer", slot)
        self._dropped_lines_counted = 0
        self._create_domain_metrics()
        self._create_hashing_metrics()
        self._create_export_metrics()
        self._create_follower_metrics()
        self._create_key_metrics()
        self._create_database_metrics()
        self._create_http_metrics()
        self._show_what_alerts_watch()

    def login(self, outcome: str) -> None:
        """Count a finished login attempt: `succeeded` or the reason it failed."""
        self._logins.labels(outcome).inc()

    def refresh(self, outcome: str) -> None:
        """Count a presented refresh token: `rotated`, `repeated`, `reused`, ..."""
        self._refreshes.labels(outcome).inc()

    def limited(self, kind: str) -> None:
        """Count an act refused because of a user's rate limit: `session`, ..."""
        self._limited.labels(kind).inc()

    def revocation(self, kind: str) -> None:
        """Count an entry written to the feed, by its kind."""
        self._revocations.labels(kind).inc()

    def hashing(self, waiting: int, busy: int) -> None:
        """Set how many hashes of this worker wait for a thread, and how many run."""
        self._hashing_waiting.set(waiting)
        self._hashing_busy.set(busy)

    def feed_head(self, position: int) -> None:
        """Set the newest feed position this worker knows."""
        self._feed_head.set(position)

    def feed_waiting(self, count: int) -> None:
        """Set how many feed requests this worker holds open."""
        self._feed_waiting.set(count)

    def canary(self, at: float) -> None:
        """Count a canary.

        Args:
            at: its time, Unix seconds.
        """
        self._canaries.inc()
        self._canary_last.set(at)

    def security_event_endpoint(self, endpoint: str) -> None:
        """Show the deliveries to an endpoint before the first one, at 0."""
        for outcome in _DELIVERIES:
            self._security_events.labels(endpoint, outcome)

    def security_event(self, endpoint: str, outcome: str) -> None:
        """Count an attempt to deliver an event: `delivered`, `refused`, ..."""
        self._security_events.labels(endpoint, outcome).inc()

    def security_event_waiting(self, endpoint: str, seconds: int) -> None:
        """Set how long an endpoint's oldest event has waited."""
        self._security_event_waiting.labels(endpoint).set(seconds)

    def followers(self, awaited: int, exempt: int, lag: int) -> None:
        """Set how many verifiers are awaited and exempt, and the slowest one's lag."""
        self._followers.labels("awaited").set(awaited)
        self._followers.labels("exempt").set(exempt)
        self._follower_lag.set(lag)

    def signing_keys(self, ages: Mapping[str, int], behind: int, silent: int) -> None:
        """Set the age of each state's oldest key, and how many verifiers lack a key.

        Args:
            ages: seconds in the state, by state.
            behind: verifiers that have not fetched a published key.
            silent: verifiers that do not report their keys.
        """
        for state, age in ages.items():
            self._key_age.labels(state).set(age)
        self._key_followers.labels("behind").set(behind)
        self._key_followers.labels("silent").set(silent)

    def audit_unlinked(self, count: int) -> None:
        """Set how many audit events are not in the chain yet."""
        self._audit_unlinked.set(count)

    def database_pool(self, measure: PoolMeasure) -> None:
        """Set the connections of this worker, and whether the database is away."""
        self._database_connections.labels("in_use").set(measure.in_use)
        self._database_connections.labels("idle").set(measure.idle)
        self._database_away.set(measure.is_away)

    def table_rows(self, rows: Mapping[str, int]) -> None:
        """Set the rows of each table, by its name."""
        for table, count in rows.items():
            self._table_rows.labels(table).set(count)

    def confirmation(self, outcome: str, seconds: float) -> None:
        """Count a caller that waited for confirmation: `confirmed` or `pending`."""
        self._confirmations.labels(outcome).inc()
        self._confirmation_seconds.labels(outcome).observe(seconds)

    def epoch(self) -> None:
        """Count an epoch that this worker began."""
        self._epochs.inc()

    def request(self, method: str, route: str, status: int, seconds: float) -> None:
        """Count an answered request by its route's template, never by its path."""
        key = method, route, status
        children = self._children.get(key)
        if children is None:
            children = self._children[key] = (
                self._requests.labels(method, route, str(status)),
                self._request_seconds.labels(route),
            )
        count, duration = children
        count.inc()
        duration.observe(seconds)

    def database_trouble(self) -> None:
        """Count an answer of 503: a dependency is away."""
        self._database_trouble.inc()

    def unexpected_error(self) -> None:
        """Count an answer of 500: a fault of the issuer."""
        self._unexpected_errors.inc()

    def dropped_lines(self, total: int) -> None:
        """Count the log lines that this worker has dropped.

        Args:
            total: dropped since it started.
        """
        self._dropped_lines.inc(total - self._dropped_lines_counted)
        self._dropped_lines_counted = total

    def reload(self, outcome: str) -> None:
        """Count a reload of the files: `changed`, `unchanged` or `kept`."""
        self._reloads.labels(outcome).inc()

    def render(self) -> bytes:
        """Return the metrics of all workers in Prometheus' text format."""
        return self.together.render()

    def _show_what_alerts_watch(self) -> None:
        """Show counters before their first event, at 0.

        A series that begins at 1 has no increase, so an alert would miss the first one.
        """
        for outcome in ("changed", "unchanged", "kept"):
            self._reloads.labels(outcome)
        for outcome in ("confirmed", "pending"):
            self._confirmations.labels(outcome)
        self._refreshes.labels("reused")

    def _create_domain_metrics(self) -> None:
        registry = self._registry
        self._logins = Counter(
            "gatehouse_issuer_logins",
            "Login attempts by outcome.",
            ["outcome"],
            registry=registry,
        )
        self._refreshes = Counter(
            "gatehouse_issuer_refreshes",
            "Refresh tokens presented, by outcome.",
            ["outcome"],
            registry=registry,
        )
        self._limited = Counter(
            "gatehouse_issuer_limited",
            "Acts refused since one user did too many, by kind.",
            ["kind"],
            registry=registry,
        )
        self._revocations = Counter(
            "gatehouse_issuer_revocations",
            "Entries written to the revocation feed, by kind.",
            ["kind"],
            registry=registry,
        )
        self._feed_head = registry.gauge(
            "gatehouse_issuer_feed_head",
            "Newest position of the revocation feed.",
            "max",
        )
        self._feed_waiting = registry.gauge(
            "gatehouse_issuer_feed_waiting",
            "Feed requests held open.",
            "sum",
        )

    def _create_hashing_metrics(self) -> None:
        registry = self._registry
        self._hashing_waiting = registry.gauge(
            "gatehouse_issuer_hashing_waiting",
            "Logins that wait for a hashing thread.",
            "sum",
        )
        self._hashing_busy = registry.gauge(
            "gatehouse_issuer_hashing_busy",
            "Hashing threads at work.",
            "sum",
        )

    def _create_export_metrics(self) -> None:
        registry = self._registry
        self._canaries = Counter(
            "gatehouse_issuer_canaries",
            "Canaries written to the revocation feed.",
            registry=registry,
        )
        self._canary_last = registry.gauge(
            "gatehouse_issuer_canary_last_timestamp_seconds",
            "When the last canary was written, Unix seconds.",
            "max",
        )
        self._security_events = Counter(
            "gatehouse_issuer_security_events",
            "Attempts to deliver a security event, by endpoint and outcome.",
            ["endpoint", "outcome"],
            registry=registry,
        )
        self._security_event_waiting = registry.gauge(
            "gatehouse_issuer_security_event_waiting_seconds",
            "How long the oldest undelivered security event has waited, by endpoint.",
            "max",
            ("endpoint",),
        )

    def _create_follower_metrics(self) -> None:
        registry = self._registry
        self._followers = registry.gauge(
            "gatehouse_issuer_followers",
            "Verifier processes by state.",
            "max",
            ("state",),
        )
        self._follower_lag = registry.gauge(
            "gatehouse_issuer_follower_lag",
            "Feed positions the slowest awaited verifier is behind.",
            "max",
        )
        self._confirmations = Counter(
            "gatehouse_issuer_confirmations",
            "Revoking calls that waited for the verifiers, by outcome.",
            ["outcome"],
            registry=registry,
        )
        self._confirmation_seconds = Histogram(
            "gatehouse_issuer_confirmation_seconds",
            "Time they waited, by outcome.",
            ["outcome"],
            buckets=_SECONDS,
            registry=registry,
        )
        self._epochs = Counter(
            "gatehouse_issuer_epochs",
            "Epochs begun because the database was another than before.",
            registry=registry,
        )

    def _create_key_metrics(self) -> None:
        registry = self._registry
        self._key_age = registry.gauge(
            "gatehouse_issuer_signing_key_age_seconds",
            "Seconds the oldest signing key has been in its state, by state.",
            "max",
            ("state",),
        )
        self._key_followers = registry.gauge(
            "gatehouse_issuer_key_followers",
            "Verifier processes that may lack a published key, by state.",
            "max",
            ("state",),
        )

    def _create_database_metrics(self) -> None:
        registry = self._registry
        self._audit_unlinked = registry.gauge(
            "gatehouse_issuer_audit_unlinked",
            "Audit events that are not in the chain yet.",
            "max",
        )
        self._database_connections = registry.gauge(
            "gatehouse_issuer_database_connections",
            "Connections to the database by state.",
            "sum",
            ("state",),
        )
        self._table_rows = registry.gauge(
            "gatehouse_issuer_table_rows",
            "Rows of each table of the database, by estimate.",
            "max",
            ("table",),
        )
        self._database_away = registry.gauge(
            "gatehouse_issuer_database_away",
            "1 while the database counts as away and requests are refused at once.",
            "max",
        )

    def _create_http_metrics(self) -> None:
        registry = self._registry
        # By method, route and status, which are few: `labels` for every request would
        # be expensive.
        self._children: dict[tuple[str, str, int], tuple[Counter, Histogram]] = {}
        self._requests = Counter(
            "gatehouse_issuer_http_requests",
            "Answered requests by method, route template and status.",
            ["method", "route", "status"],
            registry=registry,
        )
        self._request_seconds = Histogram(
            "gatehouse_issuer_http_request_seconds",
            "Time to answer, by route template.",
            ["route"],
            buckets=_SECONDS,
            registry=registry,
        )
        self._database_trouble = Counter(
            "gatehouse_issuer_database_trouble",
            "Answers of 503 because something the issuer depends on was away.",
            registry=registry,
        )
        self._dropped_lines = Counter(
            "gatehouse_issuer_log_lines_dropped",
            "Log lines that standard error did not take in time.",
            registry=registry,
        )
        self._reloads = Counter(
            "gatehouse_issuer_reloads",
            "Times that one worker read its files again, by outcome.",
            ["outcome"],
            registry=registry,
        )
        self._unexpected_errors = Counter(
            "gatehouse_issuer_unexpected_errors",
            "Answers of 500: mistakes of the issuer itself.",
            registry=registry,
        )
