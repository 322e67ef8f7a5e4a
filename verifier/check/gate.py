"""One request at the gate: may it pass, and as whom?

`Gate.answer` reads one snapshot, finds the one credential, looks up or establishes the
facts, checks expiry and revocation, applies the policy. It never waits and never raises.
"""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Callable, Mapping
from typing import Final, NamedTuple

from shared.log import event
from verifier.check.answers import (
    REFUSALS_WITH_BODY,
    REFUSALS_WITHOUT_BODY,
    Answer,
    allow_answer,
)
from verifier.check.cache import CacheCounts, Established, FactCache
from verifier.check.denials import Denied, DenyReason
from verifier.check.forward_auth import (
    Asked,
    Route,
    check_paths,
    read_bearer,
    read_question,
    read_route,
)
from verifier.check.policy import DEFAULT_POLICY, Policy, PolicyBook, TokenPolicy
from verifier.check.refusal_log import RefusalLog
from verifier.check.trust import TrustSnapshot
from verifier.check.verify import check_time, establish

_LOG: Final = logging.getLogger(__name__)


class Edges(NamedTuple):
    """What the gate needs from outside: functions, and where refusals are logged.

    Attributes:
        snapshot: gives the present trust snapshot.
        now: gives Unix seconds.
        monotonic: gives monotonic seconds.
        ask_for_keys: tells the background task that a token names an unknown key.
        refusals: writes the log lines about refusals.
    """

    snapshot: Callable[[], TrustSnapshot]
    now: Callable[[], int]
    monotonic: Callable[[], float]
    ask_for_keys: Callable[[], None]
    refusals: RefusalLog


class Post(NamedTuple):
    """A check path resolved: how the question is put, which policy answers it."""

    route: Route
    policy: Policy
    cache: FactCache


class Gate:
    """Answers check requests.

    Args:
        policies: every policy by name.
        edges: snapshot, clocks, the wish for keys, and the log of refusals.
        make_cache: gives an empty cache of facts; each token policy gets one.
    """

    def __init__(
        self,
        policies: PolicyBook,
        edges: Edges,
        make_cache: Callable[[], FactCache],
    ) -> None:
        self._snapshot, self._now, self._monotonic = edges[:3]
        self._ask_for_keys, self.refusals = edges[3:]
        self._make_cache = make_cache
        #: facts by token policy: policies with one audience share them
        self.caches: dict[TokenPolicy, FactCache] = {}
        #: what the caches of policies did that are gone
        self.past = CacheCounts()
        self.adopt(policies)
        #: answers by reason; the empty reason counts allows
        self.counts: Counter[str] = Counter()

    def adopt(self, policies: PolicyBook) -> None:
        """Answer by these policies from the next request on (R65).

        Facts about tokens stay where the token policy is the same. It must be called
        where `answer` is, between two requests.
        """
        caches: dict[TokenPolicy, FactCache] = {}
        for policy in policies.policies.values():
            token = policy.token
            if token not in caches:
                kept = self.caches.get(token)
                caches[token] = self._make_cache() if kept is None else kept
        plain = check_paths(policies.policies)
        posts = {p: _resolve(route, policies, caches) for p, route in plain.items()}
        for token, cache in self.caches.items():
            if token not in caches:
                self.past.add(cache.counts)
        #: what each check path without a client's path behind it stands for
        self.posts = posts
        #: every policy by name
        self.policies = policies
        self.caches = caches

    def answer(self, request: Asked) -> Answer:
        """Return 200 for a completed allow, else a refusal (R9, R25)."""
        route = post = None
        try:
            post = self.posts.get(request.target)
            if post is None:
                route = read_route(request.target)
                post = _resolve(route, self.policies, self.caches)
            route = post.route
            answer = self._decide(request, post)
        except Denied as denied:
            return self._refuse(denied.reason, request, route, post)
        except Exception as error:
            event(_LOG, logging.ERROR, "gate.internal_error", type=type(error).__name__)
            return self._refuse(DenyReason.INTERNAL_ERROR, request, route, post)
        self.counts[""] += 1
        return answer

    def _decide(self, request: Asked, post: Post) -> Answer:
        if not request.peer_is_trusted:
            raise Denied(DenyReason.PEER_UNTRUSTED)
        route, policy, cache = post
        trust = self._snapshot()
        is_stale = trust.check_age(self._monotonic(), allows_stale=policy.allows_stale)
        authorization, method, uri = read_question(request, route)
        established = cache.find(authorization, trust.keys.version)
        if established is None:
            established = self._establish(authorization, trust, post)
        fact = established.fact
        check_time(fact, policy.token.leeway, self._now())
        established.check_unrevoked(trust.revocations)
        policy.permit(fact.claims, method, uri)
        if is_stale:
            return allow_answer(fact.claims, b"allow-stale")
        return established.allow

    def _establish(
        self, authorization: bytes, trust: TrustSnapshot, post: Post
    ) -> Established:
        keys_version = trust.keys.version
        try:
            fact = establish(read_bearer(authorization), trust.keys, post.policy.token)
        except Denied as denied:
            if denied.reason is DenyReason.KID_UNKNOWN:
                self._ask_for_keys()
            elif denied.reason is DenyReason.SIGNATURE_INVALID:
                post.cache.keep_bad_signature(authorization, keys_version)
            raise
        established = Established(fact, allow_answer(fact.claims, b"allow"))
        post.cache.keep(authorization, keys_version, established)
        return established

    def refuse_connection(self) -> Answer:
        """Return the refusal of a connection that is one too many (R43)."""
        return self._refuse(DenyReason.OVERLOADED, None, None, None)

    def _refuse(
        self,
        reason: DenyReason,
        request: Asked | None,
        route: Route | None,
        post: Post | None,
    ) -> Answer:
        self.counts[reason] += 1
        self.refusals.note(reason, request, route, post.policy.name if post else "")
        if route is not None and route.dialect.wants_body:
            return REFUSALS_WITH_BODY[reason]
        return REFUSALS_WITHOUT_BODY[reason]


def _resolve(
    route: Route, policies: PolicyBook, caches: Mapping[TokenPolicy, FactCache]
) -> Post:
    policy = policies.find(route.policy_name or DEFAULT_POLICY)
    # Behind `/verify/envoy` the client's own path may begin with `/p/`: where that would
    # choose a policy, or the path that rules see, it must be named (decision 0002).
    has_choice = len(policies.policies) > 1 or policy.rules
    if route.client_uri is not None and not route.policy_name and has_choice:
        raise Denied(DenyReason.POLICY_UNNAMED)
    return Post(route, policy, caches[policy.token])
