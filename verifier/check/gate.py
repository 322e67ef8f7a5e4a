"""The gate: answers check requests by `decide`, with a cache, counters and a log.

It has no rule of its own. A request reads one snapshot of the trust, waits for nothing
and never raises.
"""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Callable
from typing import Final, NamedTuple

from shared.log import event
from verifier.check.answers import (
    REFUSALS_WITH_BODY,
    REFUSALS_WITHOUT_BODY,
    Answer,
)
from verifier.check.cache import CacheCounts, FactCache
from verifier.check.decision import Allowed, CheckPaths, Refused, Times, decide
from verifier.check.denials import DenyReason
from verifier.check.forward_auth import CheckRequest
from verifier.check.policy import PolicyBook, TokenPolicy
from verifier.check.refusal_log import RefusalLog
from verifier.check.trust import Trust

_LOG: Final = logging.getLogger(__name__)
# Compared for every refusal: an enum's attribute costs twice as much.
_KID_UNKNOWN: Final = DenyReason.KID_UNKNOWN


class GateDependencies(NamedTuple):
    """The gate's dependencies.

    Attributes:
        trust: its present snapshot decides.
        now: gives Unix seconds, with their fraction.
        boottime: gives seconds of this boot, the clock that trust is counted by.
        request_keys: asks the background task for a refresh of the keys.
        refusals: writes the log lines about refusals.
    """

    trust: Trust
    now: Callable[[], float]
    boottime: Callable[[], float]
    request_keys: Callable[[], None]
    refusals: RefusalLog


class Gate:
    """Answers check requests.

    Args:
        policies: every policy by name.
        dependencies: trust, clocks, key refresh, and the log of refusals.
        make_cache: gives an empty cache of facts; each token policy gets one.

    Attributes:
        paths: the check paths, by the policies in force.
        policies: every policy by name.
        caches: facts by token policy; policies with one audience share them.
        past: counts of the caches that are gone with their policies.
        counts: answers by reason; the empty reason counts allows.
        refusals: the log of refusals.
    """

    def __init__(
        self,
        policies: PolicyBook,
        dependencies: GateDependencies,
        make_cache: Callable[[], FactCache],
    ) -> None:
        self._trust, self._now, self._boottime = dependencies[:3]
        self._ask_for_keys, self.refusals = dependencies[3:]
        self._make_cache = make_cache
        self.caches: dict[TokenPolicy, FactCache] = {}
        self.past = CacheCounts()
        self.counts: Counter[str] = Counter()
        self.adopt(policies)

    def adopt(self, policies: PolicyBook) -> None:
        """Answer by these policies from the next request on (R65).

        Facts about tokens stay where the token policy is the same. Call it in the
        thread of `answer`, between two requests.
        """
        caches: dict[TokenPolicy, FactCache] = {}
        for policy in policies.policies.values():
            token = policy.token
            if token not in caches:
                kept = self.caches.get(token)
                caches[token] = self._make_cache() if kept is None else kept
        paths = CheckPaths(policies, caches)
        paths.resolve_all()
        for token, cache in self.caches.items():
            if token not in caches:
                self.past.add(cache.counts)
        self.paths = paths
        self.policies = policies
        self.caches = caches

    def answer(self, request: CheckRequest) -> Answer:
        """Return 200 for an allow, else a refusal (R9, R25)."""
        try:
            times = Times(int(self._now()), self._boottime())
            outcome = decide(request, self._trust.snapshot, self.paths, times)
            if isinstance(outcome, Refused) and outcome.reason is _KID_UNKNOWN:
                self._ask_for_keys()
        except Exception as error:
            outcome = Refused(DenyReason.INTERNAL_ERROR, error=error)
        if isinstance(outcome, Allowed):
            self.counts[""] += 1
            return outcome.answer
        return self._refuse(outcome, request)

    def refuse_connection(self) -> Answer:
        """Return the refusal of a connection beyond the limit (R43)."""
        return self._refuse(Refused(DenyReason.OVERLOADED), None)

    def _refuse(self, refused: Refused, request: CheckRequest | None) -> Answer:
        reason, route, policy = refused.reason, refused.route, refused.policy
        if refused.error is not None:
            # The type alone: the text of an error may hold a part of the token.
            error = type(refused.error).__name__
            event(_LOG, logging.ERROR, "gate.internal_error", type=error)
        self.counts[reason] += 1
        self.refusals.note(reason, request, route, policy.name if policy else "")
        if route is not None and route.dialect.wants_body:
            return REFUSALS_WITH_BODY[reason]
        return REFUSALS_WITHOUT_BODY[reason]
