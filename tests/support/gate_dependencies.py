"""The gate's dependencies in tests: clocks that are set, logs, and ids in order."""

from __future__ import annotations

import itertools
from collections.abc import Callable

from verifier.check.decision import Allowed, Refused, Times
from verifier.check.gate import GateDependencies
from verifier.check.policy import PolicyBook, TokenPolicy
from verifier.check.refusal_log import RefusalLog
from verifier.check.trust import Trust, TrustSnapshot


class KeptDecisions:
    """Keeps all decisions; the ids are numbers in order."""

    def __init__(self) -> None:
        self.outcomes: dict[bytes, Allowed | Refused] = {}
        self._numbers = itertools.count(1)

    def record(
        self,
        outcome: Allowed | Refused,
        _times: Times,
        _trust: TrustSnapshot,
        _policies: PolicyBook,
    ) -> bytes:
        """Keep a decision and return its id."""
        decision_id = b"%016x" % next(self._numbers)
        self.outcomes[decision_id] = outcome
        return decision_id


def gate_dependencies(
    trust: Trust,
    now: Callable[[], float],
    boottime: Callable[[], float],
    *,
    log_rate: int = 0,
    request_keys: Callable[[TokenPolicy], None] = lambda _: None,
    record: (
        Callable[[Allowed | Refused, Times, TrustSnapshot, PolicyBook], bytes] | None
    ) = None,
) -> GateDependencies:
    """Return dependencies whose logs write `log_rate` lines per second."""
    monotonic = boottime()
    return GateDependencies(
        trust=trust,
        now=now,
        boottime=boottime,
        request_keys=request_keys,
        refusals=RefusalLog(log_rate, trust, monotonic),
        shadow_refusals=RefusalLog(log_rate, trust, monotonic, "gate.shadow_refused"),
        record=record or KeptDecisions().record,
    )
