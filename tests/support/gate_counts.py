"""The answers that a gate has counted."""

from __future__ import annotations

from collections import Counter

from verifier.check.counts import CheckCounts
from verifier.check.gate import Gate


def counts_of(gate: Gate) -> Counter[str]:
    """Return the number of answers by reason; the empty reason counts allows."""
    counted: Counter[str] = Counter()
    for counts in gate.counts.by_policy.values():
        counted += Counter({"": counts.allows}) + Counter(counts.refusals)
    return counted


def forget_counts(gate: Gate) -> None:
    """Count from zero."""
    gate.counts = CheckCounts()
