"""The metrics of checks: how many by policy and reason, and how long they took."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import accumulate
from typing import Final

from shared.metrics.prometheus import (
    CounterMetricFamily,
    HistogramMetricFamily,
    Metric,
    Registry,
)
from verifier.check.counts import CheckCounts
from verifier.check.denials import DenyReason
from verifier.check.gate import Gate
from verifier.wire.check_times import BOUNDS, CheckTimes

_REASONS: Final = [reason.value for reason in DenyReason]


class CheckMetrics:
    """Reads the plain numbers of gate and port when they are collected.

    Args:
        registry: the worker's metrics, which it joins.
        gate: counts the checks.
        times: how long they took; None without a public port.
    """

    def __init__(
        self, registry: Registry, gate: Gate, times: CheckTimes | None = None
    ) -> None:
        self._gate = gate
        self._times = times
        registry.register(self)

    def collect(self) -> Iterator[Metric]:
        """Yield the families of checks."""
        yield _count_checks(self._gate.counts)
        if self._times is not None:
            yield _show_times(self._times)


def _count_checks(counts: CheckCounts) -> Metric:
    checks = CounterMetricFamily(
        "gatehouse_verifier_checks",
        "Answers to gateways, by decision, reason and policy.",
        labels=["decision", "reason", "policy"],
    )
    for policy, of_policy in counts.by_policy.items():
        checks.add_metric(["allow", "", policy], of_policy.allows)
        # Every reason has a series before it happens: a rate begins at 0.
        reasons = _REASONS if not policy else of_policy.refusals
        for reason in reasons:
            count = of_policy.refusals.get(reason, 0)
            checks.add_metric(["deny", reason, policy], count)
    return checks


def _show_times(times: CheckTimes) -> Metric:
    bounds = [*map(str, BOUNDS), "+Inf"]
    return HistogramMetricFamily(
        "gatehouse_verifier_check_seconds",
        "From the beginning of a decision to the send of its answer; one check in 8.",
        buckets=list(zip(bounds, accumulate(times.counts), strict=True)),
        sum_value=times.seconds,
    )
