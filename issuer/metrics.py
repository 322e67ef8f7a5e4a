"""What the issuer counts. Every metric here stands in `docs/metrics.md`.

With several workers the numbers are added up by `shared/worker_metrics.py`.
"""

from __future__ import annotations

import time
from typing import Final

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from shared import worker_metrics

_METHODS: Final = frozenset(
    {"DELETE", "GET", "HEAD", "OPTIONS", "PATCH", "POST", "PUT"}
)
#: Long polls are held up to a minute, logins take a fraction of a second.
_SECONDS: Final = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 10.0, 60.0)


class IssuerMetrics:
    """The issuer's counters and gauges, in a registry of their own."""

    def __init__(self) -> None:
        self._registry = CollectorRegistry()
        self._create_domain_metrics()
        self._create_http_metrics()

    def login(self, outcome: str) -> None:
        """Count a finished login attempt: `succeeded` or the reason it failed."""
        self._logins.labels(outcome).inc()

    def refresh(self, outcome: str) -> None:
        """Count a presented refresh token: `rotated`, `repeated`, `reused`, ..."""
        self._refreshes.labels(outcome).inc()

    def revocation(self, kind: str) -> None:
        """Count an entry written to the feed, by its kind."""
        self._revocations.labels(kind).inc()

    def hashing_waiting(self, count: int) -> None:
        """Set how many logins of this worker wait for a hashing thread."""
        self._hashing_waiting.set(count)

    def hashing_busy(self, count: int) -> None:
        """Set how many hashing threads of this worker are at work."""
        self._hashing_busy.set(count)

    def feed_head(self, position: int) -> None:
        """Set the newest feed position this worker knows."""
        self._feed_head.set(position)

    def feed_waiting(self, count: int) -> None:
        """Set how many feed requests this worker holds open."""
        self._feed_waiting.set(count)

    def request(self, method: str, route: str, status: int, seconds: float) -> None:
        """Count an answered request by its route's template, never by its path."""
        self._requests.labels(method, route, str(status)).inc()
        self._request_seconds.labels(route).observe(seconds)

    def database_trouble(self) -> None:
        """Count an answer of 503 because something we depend on is away."""
        self._database_trouble.inc()

    def unexpected_error(self) -> None:
        """Count an answer of 500: a mistake of ours."""
        self._unexpected_errors.inc()

    def render(self) -> bytes:
        """Return all metrics in Prometheus' text format, of all workers together.

        Raises:
            OSError: when the directory shared by the workers cannot be read.
        """
        return worker_metrics.render(self._registry)

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
        self._revocations = Counter(
            "gatehouse_issuer_revocations",
            "Entries written to the revocation feed, by kind.",
            ["kind"],
            registry=registry,
        )
        self._hashing_waiting = Gauge(
            "gatehouse_issuer_hashing_waiting",
            "Logins that wait for a hashing thread.",
            registry=registry,
            multiprocess_mode="livesum",
        )
        self._hashing_busy = Gauge(
            "gatehouse_issuer_hashing_busy",
            "Hashing threads at work.",
            registry=registry,
            multiprocess_mode="livesum",
        )
        self._feed_head = Gauge(
            "gatehouse_issuer_feed_head",
            "Newest position of the revocation feed.",
            registry=registry,
            multiprocess_mode="livemax",
        )
        self._feed_waiting = Gauge(
            "gatehouse_issuer_feed_waiting",
            "Feed requests held open.",
            registry=registry,
            multiprocess_mode="livesum",
        )

    def _create_http_metrics(self) -> None:
        registry = self._registry
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
        self._unexpected_errors = Counter(
            "gatehouse_issuer_unexpected_errors",
            "Answers of 500: mistakes of the issuer itself.",
            registry=registry,
        )


class RequestMetrics:
    """Counts every answer under its route's template; the path is the caller's text."""

    def __init__(self, app: ASGIApp, metrics: IssuerMetrics) -> None:
        self._app = app
        self._metrics = metrics

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one ASGI connection."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        status = 0

        async def send_watched(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
            await send(message)

        began = time.perf_counter()
        try:
            await self._app(scope, receive, send_watched)
        finally:
            route = getattr(scope.get("route"), "path", "unmatched")
            method = scope["method"] if scope["method"] in _METHODS else "other"
            elapsed = time.perf_counter() - began
            self._metrics.request(method, route, status, elapsed)
