"""One request at the gate: may it pass, and as whom?

`Gate.answer` reads one snapshot, finds the one credential, looks up or establishes the
facts, checks expiry and revocation, applies the policy. It never waits and never raises.
"""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Callable
from typing import Final, NamedTuple

from shared.log import event
from verifier.answers import (
    REFUSALS_WITH_BODY,
    REFUSALS_WITHOUT_BODY,
    Answer,
    allow_answer,
)
from verifier.cache import Established, FactCache
from verifier.denials import Denied, DenyReason
from verifier.forward_auth import CheckRequest, Route, check_paths, read_question
from verifier.forward_auth import read_route as read_route_slowly
from verifier.policy import DEFAULT_POLICY, Policy, PolicyBook
from verifier.trust import TrustSnapshot
from verifier.verify import check_current, establish

_LOG: Final = logging.getLogger(__name__)


class Edges(NamedTuple):
    """What the gate needs from outside, each a function.

    Attributes:
        snapshot: gives the present trust snapshot.
        now: gives Unix seconds.
        monotonic: gives monotonic seconds.
        ask_for_keys: tells the background task that a token names an unknown key.
    """

    snapshot: Callable[[], TrustSnapshot]
    now: Callable[[], int]
    monotonic: Callable[[], float]
    ask_for_keys: Callable[[], None]


class Gate:
    """Answers check requests.

    Args:
        policies: every policy by name.
        edges: snapshot, clocks, and the wish for keys.
        make_cache: gives an empty cache of facts; each token policy gets one.
    """

    def __init__(
        self,
        policies: PolicyBook,
        edges: Edges,
        make_cache: Callable[[], FactCache],
    ) -> None:
        self._policies = policies
        self._edges = edges
        #: facts by token policy: policies with one audience share them
        self.caches = {p.token: make_cache() for p in policies.policies.values()}
        self._cache_of = {n: self.caches[p.token] for n, p in policies.policies.items()}
        self._routes = check_paths(policies.policies)
        #: answers by reason; the empty reason counts allows
        self.counts: Counter[str] = Counter()

    def answer(self, request: CheckRequest) -> Answer:
        """Return 200 for a completed allow, else a refusal (R9, R25)."""
        route = None
        try:
            route = self._routes.get(request.target) or read_route_slowly(
                request.target
            )
            answer = self._decide(request, route)
        except Denied as denied:
            return self._refuse(denied.reason, route)
        except Exception as error:
            event(_LOG, logging.ERROR, "gate.internal_error", type=type(error).__name__)
            return self._refuse(DenyReason.INTERNAL_ERROR, route)
        self.counts[""] += 1
        return answer

    def _decide(self, request: CheckRequest, route: Route) -> Answer:
        if not request.peer_is_trusted:
            raise Denied(DenyReason.PEER_UNTRUSTED)
        policy = self._find_policy(route)
        trust = self._edges.snapshot()
        is_stale = self._check_freshness(trust, policy)
        question = read_question(request, route)
        fact, allow = self._find_fact(question.unverified_token, trust, policy)
        check_current(fact, trust, policy.token.leeway, self._edges.now())
        policy.permit(fact.claims, question.method, question.uri)
        return allow_answer(fact.claims, b"allow-stale") if is_stale else allow

    def _find_policy(self, route: Route) -> Policy:
        if route.policy_name:
            return self._policies.find(route.policy_name)
        policy = self._policies.find(DEFAULT_POLICY)
        # Behind `/verify/envoy` the client's own path may begin with `/p/`: where that
        # would choose a policy, or the path that rules see, it must be named (decision
        # 0002).
        has_choice = len(self._policies.policies) > 1 or policy.rules
        if route.client_uri is not None and has_choice:
            raise Denied(DenyReason.POLICY_UNNAMED)
        return policy

    def _check_freshness(self, trust: TrustSnapshot, policy: Policy) -> bool:
        monotonic = self._edges.monotonic()
        if monotonic >= trust.keys_until:
            raise Denied(DenyReason.NO_KEYS)
        is_stale = monotonic >= trust.fresh_until
        if is_stale and not policy.allows_stale:
            raise Denied(DenyReason.STALE)
        return is_stale

    def _find_fact(
        self, token: bytes, trust: TrustSnapshot, policy: Policy
    ) -> Established:
        cache = self._cache_of[policy.name]
        keys_version = trust.keys.version
        established = cache.find(token, keys_version)
        if established is not None:
            return established
        try:
            fact = establish(token, trust.keys, policy.token)
        except Denied as denied:
            if denied.reason is DenyReason.KID_UNKNOWN:
                self._edges.ask_for_keys()
            elif denied.reason is DenyReason.SIGNATURE_INVALID:
                cache.keep_bad_signature(token, keys_version)
            raise
        established = Established(fact, allow_answer(fact.claims, b"allow"))
        cache.keep(token, keys_version, established)
        return established

    def _refuse(self, reason: DenyReason, route: Route | None) -> Answer:
        self.counts[reason] += 1
        if route is not None and route.dialect.wants_body:
            return REFUSALS_WITH_BODY[reason]
        return REFUSALS_WITHOUT_BODY[reason]
