"""The whole decision about one check request: may it pass, and with which identity?

`decide` is the only place that turns a request into an allow or a refusal. It is pure:
the request, the trust, the policies and the times come in, the outcome comes out. The
gate calls it with a cache of facts, `/explain` calls it without one.

`decide` is over 40 lines: it is the whole decision on one page, each step with its
requirement.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final, NamedTuple

from verifier.check.answers import Answer, allow_answer, anonymous_answer
from verifier.check.denials import Denied, DenyReason
from verifier.check.forward_auth import (
    CheckRequest,
    Route,
    check_paths,
    has_credential,
    is_preflight,
    read_bearer,
    read_client,
    read_question,
    read_route,
)
from verifier.check.policy import (
    DEFAULT_POLICY,
    ClaimHeader,
    Policy,
    PolicyBook,
    Rule,
    TokenPolicy,
)
from verifier.check.trust import KeySet, TrustSnapshot
from verifier.check.verify import (
    SignedToken,
    VerifiedClaims,
    read_signed,
    verify_signed,
)


class Times:
    """The time of one decision, by both clocks.

    Attributes:
        now: Unix seconds; the token's own times are compared with it.
        boottime: seconds of this boot; the age of keys and revocations is counted by
            it.
    """

    __slots__ = ("boottime", "now")

    def __init__(self, now: int, boottime: float) -> None:
        self.now = now
        self.boottime = boottime


#: Bytes of one value of a claim that is kept.
_VALUE_BYTES: Final = 80


class Fact:
    """The outcome of checks 1 to 6 for one token under one key set.

    Attributes:
        token: the signed token; check 7 is still to be done, on every request.
        kept_bytes: estimated bytes of the claims that policies read, and their headers.
        withheld_allow: the encoded allow. It must not leave before check 7 and the
            route's policy have passed; only `decide` releases it.
    """

    __slots__ = ("kept_bytes", "token", "withheld_allow")

    def __init__(
        self, token: SignedToken, headers: tuple[ClaimHeader, ...] = ()
    ) -> None:
        self.token = token
        self.withheld_allow: Answer = allow_answer(token.claims, b"allow", headers)
        kept = token.claims.kept.values()
        self.kept_bytes = sum([_VALUE_BYTES * (1 + len(values)) for values in kept])
        if headers:
            self.kept_bytes += len(self.withheld_allow.head)


class Facts:
    """Establishes facts about tokens and keeps none; `FactCache` keeps them."""

    def establish(
        self, authorization: bytes, keys: KeySet, policy: TokenPolicy
    ) -> Fact:
        """Return the fact about the token in an Authorization header.

        Raises:
            Denied: with the reason of the first of checks 1 to 6 that does not pass.
        """
        token = read_signed(read_bearer(authorization), keys, policy)
        return Fact(token, policy.headers)


_NO_CACHE: Final = Facts()


class CheckPath(NamedTuple):
    """A check path resolved.

    Attributes:
        route: the dialect, and the client's path where it is appended.
        policy: the policy that decides.
        facts: the facts about tokens under its token policy.
        anonymous_allow: the encoded allow without a token. Only `decide` releases it.
    """

    route: Route
    policy: Policy
    facts: Facts
    anonymous_allow: Answer


class CheckPaths:
    """Resolves check paths to their policies.

    Args:
        policies: every policy by name.
        facts: the caches of facts by token policy; without one, facts are not kept.

    Attributes:
        by_target: the check paths resolved in advance.
    """

    def __init__(
        self, policies: PolicyBook, facts: Mapping[TokenPolicy, Facts] | None = None
    ) -> None:
        self._policies = policies
        self._facts = facts or {}
        self._anonymous_allows = {
            name: anonymous_answer(policy.token.headers)
            for name, policy in policies.policies.items()
        }
        self.by_target: dict[bytes, CheckPath] = {}

    def resolve_all(self) -> None:
        """Resolve every path without a client's path, for one look-up each."""
        plain = check_paths(self._policies.policies)
        self.by_target = {path: self.resolve(route) for path, route in plain.items()}

    def resolve(self, route: Route) -> CheckPath:
        """Return the policy that a check path names, and its facts.

        Raises:
            Denied: `policy_unknown`, `policy_unnamed`.
        """
        policy = self._policies.find(route.policy_name or DEFAULT_POLICY)
        # Envoy appends the client's own path, which may begin with `/p/`. Where that
        # could choose a policy, or the path that rules see, the gateway must name the
        # policy (decision 0002).
        has_choice = len(self._policies.policies) > 1 or policy.rules
        if route.client_uri is not None and not route.policy_name and has_choice:
            raise Denied(DenyReason.POLICY_UNNAMED)
        facts = self._facts.get(policy.token, _NO_CACHE)
        anonymous_allow = self._anonymous_allows[policy.name]
        return CheckPath(route, policy, facts, anonymous_allow)


class Allowed:
    """The request may pass.

    Attributes:
        claims: the verified claims; None when the request needs no token and none was
            read.
        answer: the allow.
    """

    __slots__ = ("answer", "claims")

    def __init__(self, claims: VerifiedClaims | None, answer: Answer) -> None:
        self.claims = claims
        self.answer = answer


class Refused:
    """The request may not pass.

    Attributes:
        reason: the word for it.
        route: the route of the check path; None when the path has none.
        policy: the policy that was asked for; None when none was found.
        claims: the claims, only when the token passed all seven checks and the policy
            refused it. Nothing of an unverified token leaves here.
        error: the fault of ours, when the reason is `internal_error`.
    """

    __slots__ = ("claims", "error", "policy", "reason", "route")

    def __init__(
        self,
        reason: DenyReason,
        route: Route | None = None,
        policy: Policy | None = None,
        claims: VerifiedClaims | None = None,
        error: Exception | None = None,
    ) -> None:
        self.reason = reason
        self.route = route
        self.policy = policy
        self.claims = claims
        self.error = error


def needs_no_token(policy: Policy, rule: Rule | None, request: CheckRequest) -> bool:
    """Return whether the request passes without a token.

    Args:
        policy: the policy that decides.
        rule: the rule that matches; None when the policy has no rules.
        request: what the gateway sent.
    """
    choice = policy if rule is None else rule
    return choice.is_public or (choice.is_optional and not has_credential(request))


def decide(
    request: CheckRequest, trust: TrustSnapshot, paths: CheckPaths, times: Times
) -> Allowed | Refused:
    """Decide about one check request; never raise (R9, R25).

    Args:
        request: the gateway's request.
        trust: keys and revocations, one snapshot for the whole decision.
        paths: the policies by check path.
        times: the time now.
    """
    route: Route | None = None
    policy: Policy | None = None
    rule: Rule | None = None
    claims: VerifiedClaims | None = None
    try:
        # a. The check path: which dialect, which policy.
        path = paths.by_target.get(request.target)
        if path is None:
            route = read_route(request.target)
            path = paths.resolve(route)
        route, policy, facts, anonymous_allow = path
        # b. The peer: a gateway of ours (R1).
        if not request.peer_is_trusted:
            raise Denied(DenyReason.PEER_UNTRUSTED)
        # c. A request that needs no token, whatever the trust (R61).
        if not policy.reads_token_always:
            method, host, uri = read_client(request, route)
            if policy.allows_preflight and is_preflight(request, method):
                return Allowed(None, anonymous_allow)
            rule = policy.find_rule(method, host, uri)
            if needs_no_token(policy, rule, request):
                return Allowed(None, anonymous_allow)
        # d. The trust: young enough to decide by (R38).
        is_stale = trust.check_age(times.boottime, allows_stale=policy.allows_stale)
        # e. The question: one credential, and the client's request (R3, R4).
        authorization, client = read_question(request, route)
        # f. The token: checks 1 to 6, then check 7 on every request (R26).
        fact = facts.establish(authorization, trust.keys, policy.token)
        claims = verify_signed(
            fact.token, trust.revocations, policy.token.leeway, times.now
        )
        # g. The policy and its rule: scopes, roles, claims, ages (R8).
        if policy.asks_more:
            policy.permit(claims, rule or policy.find_rule(*client), times.now)
        if is_stale:
            answer = allow_answer(claims, b"allow-stale", policy.token.headers)
            return Allowed(claims, answer)
        return Allowed(claims, fact.withheld_allow)
    except Denied as denied:
        return Refused(denied.reason, route, policy, claims)
    except Exception as error:
        return Refused(DenyReason.INTERNAL_ERROR, route, policy, error=error)
