"""The whole decision about one check request: may it pass, and with which identity?

`decide` is the only place that turns a request into an allow or a refusal. It is pure:
the request, the trust, the policies and the times come in, the outcome comes out. The
gate calls it with a cache of facts, `/explain` calls it without one.

`decide` is over 40 lines: it is the whole decision on one page, each step with its
requirement.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from shared.jose.jws import JwsError
from verifier.check.answers import (
    Answer,
    allow_answer,
    anonymous_answer,
    document_answer,
)
from verifier.check.denials import Denied, DenyReason
from verifier.check.forward_auth import (
    CheckRequest,
    Route,
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
    TokenPolicy,
)
from verifier.check.rules.rule import Rule
from verifier.check.trust import TrustSnapshot
from verifier.check.verify import (
    REASON_OF,
    SignedToken,
    VerifiedClaims,
    read_signed,
    verify_signed,
)

# Compared for every refusal: an enum's attribute costs twice as much.
_SIGNATURE_INVALID: Final = DenyReason.SIGNATURE_INVALID
#: The public port serves each policy's resource metadata under this path.
METADATA_PREFIX: Final = b"/resource-metadata/"


class Times:
    """The time of one decision, by both clocks.

    Attributes:
        exact: Unix seconds with their fraction, for records.
        now: whole Unix seconds; the token's own times are compared with it.
        boottime: seconds of this boot; the age of keys and revocations is counted by
            it.
    """

    __slots__ = ("boottime", "exact", "now")

    def __init__(self, exact: float, boottime: float) -> None:
        self.exact = exact
        self.now = int(exact)
        self.boottime = boottime


#: Bytes of one role, scope, audience or other value, by measurement.
_VALUE_BYTES: Final = 80


class Fact:
    """The outcome of checks 1 to 6 for one token under one key set.

    Attributes:
        token: the signed token; check 7 is still to be done, on every request.
        authorization: the value of the header that it was read from; empty until a
            cache keeps it.
        issuer: the token's `iss`.
        keys_version: of the issuer's keys by which it was checked (R27).
        kept_bytes: estimated bytes of the claims with many values, and of the allow. A
            token of 8,000 bytes may have a thousand roles, which take 100 KB.
        withheld_allow: the encoded allow. It must not leave before check 7 and the
            route's policy have passed; only `decide` releases it.
    """

    __slots__ = (
        "authorization",
        "issuer",
        "kept_bytes",
        "keys_version",
        "token",
        "withheld_allow",
    )

    def __init__(
        self, token: SignedToken, headers: tuple[ClaimHeader, ...] = ()
    ) -> None:
        self.token = token
        self.authorization = b""
        self.issuer = token.claims.iss
        self.keys_version = token.keys_version
        self.withheld_allow: Answer = allow_answer(token.claims, b"allow", headers)
        claims = token.claims
        values = len(claims.roles) + len(claims.scopes) + len(claims.audiences)
        values += sum([1 + len(kept) for kept in claims.kept.values()])
        self.kept_bytes = _VALUE_BYTES * values + len(self.withheld_allow.head)


class Facts:
    """Keeps no facts about tokens; `FactCache` does."""

    def find(self, authorization: bytes, trust: TrustSnapshot) -> Fact | None:
        """Return the fact kept about the token in an Authorization header, or None.

        Raises:
            Denied: `signature_invalid` when it is kept that its signature is bad.
        """
        return None

    def keep(self, authorization: bytes, fact: Fact) -> None:
        """Keep a fact that `find` did not return."""

    def keep_bad_signature(self, authorization: bytes, keys_revision: int) -> None:
        """Keep that this token's signature is wrong under these keys."""


_NO_CACHE: Final = Facts()


class CheckPath:
    """A check path resolved.

    Attributes:
        route: the dialect, and the client's path where it is appended.
        policy: the policy that decides.
        facts: the facts about tokens under its token policy.
        anonymous_allow: the encoded allow without a token. Only `decide` releases it.
    """

    __slots__ = ("anonymous_allow", "facts", "policy", "route")

    def __init__(
        self, route: Route, policy: Policy, facts: Facts, anonymous_allow: Answer
    ) -> None:
        self.route = route
        self.policy = policy
        self.facts = facts
        self.anonymous_allow = anonymous_allow


class CheckPaths:
    """Resolves check paths to their policies.

    Args:
        policies: every policy by name.
        facts: the caches of facts by token policy; without one, facts are not kept.

    Attributes:
        by_target: the check paths resolved so far, but for those with a client's path
            or a query; at most one per dialect and policy, and one more per dialect.
        documents: the encoded resource metadata documents by their target (RFC 9728).
    """

    def __init__(
        self, policies: PolicyBook, facts: Mapping[TokenPolicy, Facts] | None = None
    ) -> None:
        self._policies = policies
        self._facts = facts or {}
        self._anonymous_allows: dict[str, Answer] = {}
        self.by_target: dict[bytes, CheckPath] = {}
        self.documents: dict[bytes, Answer] = {
            METADATA_PREFIX + name.encode(): document_answer(metadata.document)
            for name, policy in policies.policies.items()
            if (metadata := policy.resource_metadata) is not None
        }

    def keep(self, target: bytes, path: CheckPath) -> CheckPath:
        """Keep a resolved check path for one look-up next time, and return it.

        One with a client's path or a query is not kept: a client chooses those.
        """
        if path.route.client_uri is None and b"?" not in target:
            self.by_target[target] = path
        return path

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
        anonymous_allow = self._anonymous_allows.get(policy.name)
        if anonymous_allow is None:
            anonymous_allow = anonymous_answer(policy.token.headers)
            self._anonymous_allows[policy.name] = anonymous_allow
        return CheckPath(route, policy, facts, anonymous_allow)


class Allowed:
    """The request may pass.

    Attributes:
        claims: the verified claims; None when the request needs no token and none was
            read.
        answer: the allow.
        route: the route of the check path.
        policy: the policy that permits the request.
        rule: the rule that matches; None when the policy has no rules.
        kid: the key that signed the token; empty when none was read.
        shadowed: why the request would be refused outside of shadow mode; else None.
    """

    __slots__ = ("answer", "claims", "kid", "policy", "route", "rule", "shadowed")

    def __init__(
        self,
        claims: VerifiedClaims | None,
        answer: Answer,
        route: Route,
        policy: Policy,
        rule: Rule | None = None,
        kid: str = "",
        shadowed: DenyReason | None = None,
    ) -> None:
        self.claims = claims
        self.answer = answer
        self.route = route
        self.policy = policy
        self.rule = rule
        self.kid = kid
        self.shadowed = shadowed


class Refused:
    """The request may not pass.

    Attributes:
        reason: the word for it.
        route: the route of the check path; None when the path has none.
        policy: the policy that was asked for; None when none was found.
        claims: the claims, only when the token passed all seven checks and the policy
            refused it. Nothing of an unverified token leaves here.
        rule: the rule that matches; None when the request was refused before one was
            looked for, or when there is none.
        kid: the key of ours that signed the token; empty when that is not known.
        error: the fault of ours, when the reason is `internal_error`.
    """

    __slots__ = ("claims", "error", "kid", "policy", "reason", "route", "rule")

    def __init__(
        self,
        reason: DenyReason,
        route: Route | None = None,
        policy: Policy | None = None,
        claims: VerifiedClaims | None = None,
        rule: Rule | None = None,
        kid: str = "",
        error: Exception | None = None,
    ) -> None:
        self.reason = reason
        self.route = route
        self.policy = policy
        self.claims = claims
        self.rule = rule
        self.kid = kid
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


def rule_of(refused: Refused, request: CheckRequest) -> Rule | None:
    """Return the rule that a refusal's challenge is about (RFC 6750, section 3).

    A token is refused before the rules are tried. The challenge still names the scopes
    that the request needs, so a client asks for the right token at once.
    """
    route, policy = refused.route, refused.policy
    if refused.rule is None and route is not None and policy is not None:
        try:
            return policy.find_rule(*read_client(request, route))
        except Denied:
            return None
    return refused.rule


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
    shadowed: DenyReason | None = None
    kid = ""
    try:
        # a. The check path: which dialect, which policy.
        path = paths.by_target.get(request.target)
        if path is None:
            route = read_route(request.target)
            path = paths.keep(request.target, paths.resolve(route))
        route, policy, facts = path.route, path.policy, path.facts
        # b. The peer: a gateway of ours (R1).
        if not request.peer_is_trusted:
            raise Denied(DenyReason.PEER_UNTRUSTED)
        # c. A request that needs no token, whatever the trust (R61).
        if not policy.reads_token_always:
            method, host, uri = read_client(request, route)
            if policy.allows_preflight and is_preflight(request, method):
                return Allowed(None, path.anonymous_allow, route, policy)
            try:
                rule = policy.find_rule(method, host, uri)
            except Denied:
                # In shadow mode a good token passes where no rule matches (step g).
                if not policy.is_shadow:
                    raise
            if needs_no_token(policy, rule, request):
                return Allowed(None, path.anonymous_allow, route, policy, rule)
        # d. The trust in the one issuer that is accepted: young enough to decide by,
        # whatever the request says (R38). Of several, the token says which it is.
        sole, is_stale = policy.token.sole, False
        if sole is not None:
            held = trust.of(sole.issuer)
            is_stale = held.check_age(times.boottime, allows_stale=policy.allows_stale)
        # e. The question: one credential, and the client's request (R3, R4).
        authorization, client = read_question(request, route)
        # f. The token: checks 1 to 6, then check 7 on every request (R26).
        fact = facts.find(authorization, trust)
        if fact is None:
            bearer = read_bearer(authorization)
            signed = read_signed(bearer, trust, policy.token, times.boottime)
            fact = Fact(signed, policy.token.headers)
            facts.keep(authorization, fact)
        kid = fact.token.kid
        if sole is None:
            held = trust.of(fact.issuer)
            is_stale = held.check_age(times.boottime, allows_stale=policy.allows_stale)
        claims = verify_signed(
            fact.token, held.revocations, policy.token.leeway, times.now
        )
        # g. The policy and its rule: scopes, roles, claims, ages (R8).
        if policy.asks_more:
            try:
                rule = rule or policy.find_rule(*client)
                policy.permit(claims, rule, times.now)
            except Denied as denied:
                # Shadow mode concerns this step alone (R65).
                if not policy.is_shadow:
                    raise
                shadowed = denied.reason
        answer = fact.withheld_allow
        if is_stale or shadowed is not None:
            decision = b"allow-stale" if is_stale else b"allow-shadow"
            answer = allow_answer(claims, decision, policy.token.headers)
        return Allowed(claims, answer, route, policy, rule, kid, shadowed)
    except Denied as denied:
        return Refused(denied.reason, route, policy, claims, rule, kid)
    except JwsError as unsound:
        # Not `error`: compiled, a name has one type.
        reason = REASON_OF[unsound.fault]
        # Of these refusals only a bad signature is kept, because it costs the most. Of
        # several issuers only the token says which it is: its keys may become too old,
        # and the refusal is another one then.
        if reason is _SIGNATURE_INVALID and policy is not None and policy.token.sole:
            facts.keep_bad_signature(authorization, trust.keys_revision)
        return Refused(reason, route, policy, rule=rule)
    except Exception as error:
        return Refused(DenyReason.INTERNAL_ERROR, route, policy, error=error)
