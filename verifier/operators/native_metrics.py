"""The metrics of gateways that check tokens by themselves."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from shared.metrics.prometheus import Counter, Histogram, Registry
from verifier.native.gateways import Gateways

#: Seconds. A write into a running gateway takes milliseconds; one of a million entries
#: seconds; one into a gateway that does not prove it, until it does.
_BUCKETS: Final = (
    *(0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5),
    *(1.0, 2.0, 5.0, 10.0, 30.0),
)


class NativeMetrics:
    """What is in force in the gateways that this verifier writes into.

    Args:
        registry: gets the metrics.
        gateways: None without any; the metrics are there all the same.
        add: sets a counter to a total, for labels.
    """

    def __init__(
        self,
        registry: Registry,
        gateways: Gateways | None,
        add: Callable[..., None],
    ) -> None:
        self._gateways = gateways
        self._add = add
        self._processes = registry.gauge(
            "gatehouse_verifier_native_gateways",
            "Gateway processes that check tokens by themselves, by state.",
            "sum",
            ("state",),
        )
        self._position = registry.gauge(
            "gatehouse_verifier_native_position",
            "Feed position that is in force in all of these gateways.",
            "min",
        )
        self._writes = Counter(
            "gatehouse_verifier_native_writes_total",
            "Writes into these gateways, by outcome.",
            ["outcome"],
            registry=registry,
        )
        self._seconds = Histogram(
            "gatehouse_verifier_native_write_seconds",
            "From a write into such a gateway to the proof that all of it has it.",
            buckets=_BUCKETS,
            registry=registry,
        )

    def flush(self) -> None:
        """Show the present state."""
        if self._gateways is None:
            return
        in_force = self._gateways.in_force
        self._position.set(in_force.position(in_force.mark.epoch))
        states = {
            "connected": in_force.reached_processes,
            "failing": self._gateways.failing,
            "awaited": in_force.awaited_processes,
        }
        for state, count in states.items():
            self._processes.labels(state).set(count)
        self._add(self._writes, in_force.written, "proven")
        self._add(self._writes, in_force.failed, "failed")
        for seconds in in_force.take_delays():
            self._seconds.observe(seconds)
