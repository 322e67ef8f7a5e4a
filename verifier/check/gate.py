"""The gate: answers check requests by `decide`, with a cache, counters and a log.

It has no rule of its own. A request reads one snapshot of the trust, waits for nothing
and never raises.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Final, NamedTuple

from shared.log import event
from verifier.check.answers import (
    REFUSALS_WITH_BODY,
    REFUSALS_WITHOUT_BODY,
    Answer,
    add_challenge,
    add_decision_id,
    challenge_parameters,
)
from verifier.check.cache import CacheCounts, FactCache
from verifier.check.counts import CheckCounts, ShadowCounts
from verifier.check.decision import (
    Allowed,
    CheckPaths,
    Refused,
    Times,
    decide,
    rule_of,
)
from verifier.check.denials import DenyReason
from verifier.check.forward_auth import CheckRequest, Route
from verifier.check.policy import Policy, PolicyBook, TokenPolicy
from verifier.check.refusal_log import RefusalLog
from verifier.check.trust import Trust, TrustSnapshot

_LOG: Final = logging.getLogger(__name__)
# Compared for every refusal: an enum's attribute costs twice as much.
_KID_UNKNOWN: Final = DenyReason.KID_UNKNOWN


class GateDependencies(NamedTuple):
    """The gate's dependencies.

    Attributes:
        trust: its present snapshot decides.
        now: gives Unix seconds, with their fraction.
        boottime: gives seconds of this boot, the clock that trust is counted by.
        request_keys: asks the background tasks for a refresh of the keys of the issuers
            that a policy accepts.
        refusals: writes the log lines about refusals.
        shadow_refusals: writes those about requests that shadow mode let pass.
        record: keeps a decision for operators, with its times and the trust and
            policies in force, and returns its id in ASCII; never raises.
    """

    trust: Trust
    now: Callable[[], float]
    boottime: Callable[[], float]
    request_keys: Callable[[TokenPolicy], None]
    refusals: RefusalLog
    shadow_refusals: RefusalLog
    record: Callable[[Allowed | Refused, Times, TrustSnapshot, PolicyBook], bytes]


class Gate:
    """Answers check requests.

    Args:
        policies: every policy by name.
        dependencies: trust, clocks, key refresh, and the log of refusals.
        make_cache: gives an empty cache of facts; each token policy gets one.

    Attributes:
        paths: the check paths, by the policies in force.
        policies: every policy by name.
        caches: facts by token policy; policies with the same one share them.
        past: counts of the caches that are gone with their policies.
        counts: how many checks were allowed and refused, by policy.
        boottime: gives seconds of this boot.
        asked: when the last check came.
        refusals: the log of refusals.
        shadow_refusals: the log of requests that shadow mode let pass.
        shadow_counts: how many those were.
    """

    def __init__(
        self,
        policies: PolicyBook,
        dependencies: GateDependencies,
        make_cache: Callable[[], FactCache],
    ) -> None:
        self._trust, self._now, self.boottime = dependencies[:3]
        self._ask_for_keys, self.refusals = dependencies[3:5]
        self.shadow_refusals, self._record = dependencies[5:]
        self._make_cache = make_cache
        self.caches: dict[TokenPolicy, FactCache] = {}
        self.past = CacheCounts()
        self.counts = CheckCounts()
        self.asked = Times(0.0, 0.0)
        self.shadow_counts = ShadowCounts()
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
        for token, cache in self.caches.items():
            if token not in caches:
                self.past.add(cache.counts)
        self.paths = paths
        self.policies = policies
        self.caches = caches

    def answer(self, request: CheckRequest) -> Answer:
        """Return 200 for an allow, else a refusal (R9, R25)."""
        try:
            times = Times(self._now(), self.boottime())
            self.asked = times
            outcome = decide(request, self._trust.snapshot, self.paths, times)
            if isinstance(outcome, Refused) and outcome.reason is _KID_UNKNOWN:
                policy = outcome.policy
                if policy is not None:
                    self._ask_for_keys(policy.token)
        except Exception as error:
            outcome = Refused(DenyReason.INTERNAL_ERROR, error=error)
        if isinstance(outcome, Allowed):
            self.counts.of(outcome.policy.name).allows += 1
            if outcome.policy.is_recorded:
                return self._note_allowed(outcome, request)
            return outcome.answer
        return self._refuse(outcome, request)

    def refuse_connection(self) -> Answer:
        """Return the refusal of a connection beyond the limit (R43)."""
        return self.refuse(DenyReason.OVERLOADED)

    def refuse(self, reason: DenyReason, route: Route | None = None) -> Answer:
        """Return the refusal of what is no check request that could be decided about.

        Args:
            reason: why.
            route: its dialect decides whether the refusal has a body; None for none.
        """
        self.asked = Times(self._now(), self.boottime())
        return self._refuse(Refused(reason, route), None)

    def _note_allowed(self, allowed: Allowed, request: CheckRequest) -> Answer:
        """Return the allow of a policy in shadow mode, or with decision ids."""
        policy, reason = allowed.policy, allowed.shadowed
        answer, decision_id = allowed.answer, b""
        if policy.has_decision_ids or reason is not None:
            trust = self._trust.snapshot
            decision_id = self._record(allowed, self.asked, trust, self.policies)
            answer = add_decision_id(answer, decision_id)
        if reason is not None:
            self.shadow_counts.add(policy, allowed.rule, reason)
            refused = Refused(reason, allowed.route, policy, rule=allowed.rule)
            self.shadow_refusals.note(refused, request, decision_id)
        return answer

    def _refuse(self, refused: Refused, request: CheckRequest | None) -> Answer:
        reason, route, policy = refused.reason, refused.route, refused.policy
        if refused.error is not None:
            # The type alone: the text of an error may hold a part of the token.
            error = type(refused.error).__name__
            event(_LOG, logging.ERROR, "gate.internal_error", type=error)
        counts = self.counts.of("" if policy is None else policy.name)
        counts.count_refusal(reason)
        trust = self._trust.snapshot
        decision_id = self._record(refused, self.asked, trust, self.policies)
        self.refusals.note(refused, request, decision_id)
        has_body = route is not None and route.dialect.wants_body
        answer = (REFUSALS_WITH_BODY if has_body else REFUSALS_WITHOUT_BODY)[reason]
        if policy is not None and request is not None and policy.has_challenge(reason):
            answer = _challenged(answer, refused, policy, request)
        return add_decision_id(answer, decision_id)


def _challenged(
    answer: Answer, refused: Refused, policy: Policy, request: CheckRequest
) -> Answer:
    """Return a refusal with what the policy's challenge says besides; never raise."""
    if answer.status == 503:
        return answer
    try:
        rule = rule_of(refused, request)
        parameters = challenge_parameters(refused.reason, policy, rule)
    except Exception as error:
        # The refusal is decided, perhaps before a rule was looked for.
        event(_LOG, logging.ERROR, "gate.internal_error", type=type(error).__name__)
        return answer
    return add_challenge(answer, parameters)
