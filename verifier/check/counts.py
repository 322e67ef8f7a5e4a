"""Counts of answers, by policy and, for those of shadow mode, by rule (R39, R65).

Each count is a time series for Prometheus, so their number has a bound. They outlive
their policy, because counters only go up.
"""

from __future__ import annotations

from collections import Counter
from typing import Final, NamedTuple

from verifier.check.denials import DenyReason
from verifier.check.policy import Policy
from verifier.check.rules.rule import Rule

#: Policies with counts of their own. All others are counted together.
MAX_POLICIES: Final = 100
#: The name of all others.
OTHERS: Final = "(other)"
_MAX_KEYS: Final = 100


class PolicyCounts:
    """Answers under one policy.

    Attributes:
        allows: how many checks were allowed.
        refusals: how many were refused, by reason.
    """

    __slots__ = ("allows", "refusals")

    def __init__(self) -> None:
        # Compiled, this costs less than a count in a dictionary: a warm check 7 %.
        self.allows = 0
        # A `Counter` finds its methods anew for every count.
        self.refusals: dict[str, int] = {}

    def count_refusal(self, reason: DenyReason) -> None:
        """Count one more refusal."""
        self.refusals[reason] = self.refusals.get(reason, 0) + 1


class CheckCounts:
    """Answers by policy, in a bounded number.

    Attributes:
        by_policy: the counts by the policy's name; those of requests without a policy
            under the empty name.
    """

    def __init__(self) -> None:
        self.by_policy: dict[str, PolicyCounts] = {"": PolicyCounts()}

    def of(self, policy: str) -> PolicyCounts:
        """Return the counts of a policy, or those of all others."""
        counts = self.by_policy.get(policy)
        return self._begin(policy) if counts is None else counts

    def _begin(self, policy: str) -> PolicyCounts:
        # The empty name counts as well.
        name = policy if len(self.by_policy) <= MAX_POLICIES else OTHERS
        return self.by_policy.setdefault(name, PolicyCounts())


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


_OTHER: Final = ShadowKey(OTHERS, 0, "")


class ShadowCounts:
    """Counts by policy, rule and reason, in a bounded number.

    Attributes:
        by_key: the counts.
    """

    def __init__(self) -> None:
        self.by_key: Counter[ShadowKey] = Counter()

    def add(self, policy: Policy, rule: Rule | None, reason: DenyReason) -> None:
        """Count one request that would be refused outside of shadow mode."""
        key = ShadowKey(policy.name, 0 if rule is None else rule.number, reason)
        if key not in self.by_key and len(self.by_key) >= _MAX_KEYS:
            key = _OTHER
        self.by_key[key] += 1
