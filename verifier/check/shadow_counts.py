"""Counts of the requests that shadow mode let pass, by rule (R65)."""

from __future__ import annotations

from collections import Counter
from typing import Final, NamedTuple

from verifier.check.denials import DenyReason
from verifier.check.policy import Policy
from verifier.check.rules.rule import Rule

#: Each count is a time series for Prometheus.
_MAX_KEYS: Final = 100


class ShadowKey(NamedTuple):
    """What one count is about.

    Attributes:
        policy: its name; `(other)` for all that have no count of their own.
        rule: the number of the rule that matches, from 1; 0 for none.
        reason: the word of the refusal; empty for `(other)`.
    """

    policy: str
    rule: int
    reason: str


_OTHER: Final = ShadowKey("(other)", 0, "")


class ShadowCounts:
    """Counts by policy, rule and reason, in a bounded number.

    Attributes:
        by_key: the counts. They outlive their policy, because Prometheus counters only
            go up.
    """

    def __init__(self) -> None:
        self.by_key: Counter[ShadowKey] = Counter()

    def add(self, policy: Policy, rule: Rule | None, reason: DenyReason) -> None:
        """Count one request that would be refused outside of shadow mode."""
        key = ShadowKey(policy.name, 0 if rule is None else rule.number, reason)
        if key not in self.by_key and len(self.by_key) >= _MAX_KEYS:
            key = _OTHER
        self.by_key[key] += 1
