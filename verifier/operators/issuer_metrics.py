"""The metrics of other issuers' keys, by the configured name of each."""

from __future__ import annotations

from collections.abc import Callable

from shared.metrics.prometheus import Counter, Registry
from verifier.check.trust import Trust
from verifier.sync.keys import KeysRefresher
from verifier.sync.other_issuers import OtherIssuers


class IssuerMetrics:
    """How many keys each other issuer has, and for how long they are good.

    Args:
        registry: gets the gauges.
        others: the issuers that are followed.
        trust: their keys.
        boottime: gives boot-time seconds.
        failures: counts failed attempts, by source and issuer.
    """

    def __init__(
        self,
        registry: Registry,
        others: OtherIssuers,
        trust: Trust,
        boottime: Callable[[], float],
        failures: Counter,
    ) -> None:
        self._others = others
        self._trust = trust
        self._boottime = boottime
        self._failures = failures
        # Already counted. An issuer with another address, or one that comes back, has
        # another refresher, which begins at 0.
        self._counted: dict[KeysRefresher, int] = {}
        self._shown: frozenset[str] = frozenset()
        self._keys = registry.gauge(
            "gatehouse_verifier_issuer_keys",
            "Verification keys of another issuer, in the worker with fewest.",
            "min",
            ("issuer",),
        )
        self._usable = registry.gauge(
            "gatehouse_verifier_issuer_keys_usable_seconds",
            "Until the keys of another issuer are too old, in the worst worker.",
            "min",
            ("issuer",),
        )

    def flush(self) -> None:
        """Set the gauges; those of an issuer that is not followed any more end.

        Its failures stay counted.
        """
        now, issuers = self._boottime(), self._trust.snapshot.issuers
        refreshers = self._others.refreshers
        for name in self._shown - refreshers.keys():
            self._keys.remove(name)
            self._usable.remove(name)
        self._shown = frozenset(refreshers)
        counted, self._counted = self._counted, {}
        for name, refresher in refreshers.items():
            total = refresher.status.failures_total
            self._failures.labels("jwks", name).inc(total - counted.get(refresher, 0))
            self._counted[refresher] = total
            known = issuers.get(refresher.source.issuer)
            if known is not None:
                self._keys.labels(name).set(len(known.keys.keys))
                self._usable.labels(name).set(max(0.0, known.keys_until - now))
