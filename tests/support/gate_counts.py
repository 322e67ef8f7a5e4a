"""The answers that a gate has counted."""

from __future__ import annotations

from collections import Counter

from verifier.check.gate import Gate


def counts_of(gate: Gate) -> Counter[str]:
    """Return the number of answers by reason; the empty reason counts allows."""
    allows = {"": gate.allows} if gate.allows else {}
    return Counter(allows | gate.refusals_by_reason)


def forget_counts(gate: Gate) -> None:
    """Count from zero."""
    gate.allows = 0
    gate.refusals_by_reason.clear()
