"""A decision as people read it: what was decided, by which rule and check, and why.

`/explain` and `policy explain` give the same description. It never has a token, and
claims only after they were verified (R35).
"""

from __future__ import annotations

from collections.abc import Mapping
from collections.abc import Set as AbstractSet
from typing import Any

from verifier.check.answers import (
    REFUSALS_WITHOUT_BODY,
    Answer,
    add_challenge,
    challenge_parameters,
    decision_of,
)
from verifier.check.decision import Allowed, Refused, rule_of
from verifier.check.forward_auth import CheckRequest
from verifier.check.refusal_log import NamedKey, find_named_key
from verifier.check.rules.rule import Rule
from verifier.check.trust import TrustSnapshot
from verifier.check.verify import VerifiedClaims
from verifier.policies.explanation import (
    Check,
    CheckOutcome,
    CheckResult,
    list_checks,
)


def describe_decision(
    outcome: Allowed | Refused,
    request: CheckRequest,
    trust: TrustSnapshot,
    now: int,
    unknown: AbstractSet[Check],
) -> dict[str, Any]:
    """Return the description of a decision that was just made.

    Args:
        outcome: from `decide`.
        request: the request that was decided.
        trust: that of the decision.
        now: Unix seconds of the decision.
        unknown: as in `list_checks`.

    Returns:
        JSON; docs/policies.md ("Why was a request refused?") has its members.
    """
    route, policy = outcome.route, outcome.policy
    rule, named = outcome.rule, _find_named_key(outcome, request, trust)
    if isinstance(outcome, Refused):
        rule = rule_of(outcome, request)
    described = {
        **_describe_outcome(outcome, rule),
        "dialect": "" if route is None else route.dialect.name,
        "policy": "" if policy is None else policy.name,
        "rule": None if rule is None else describe_rule(rule),
        "issuer": named.issuer,
        "kid": named.kid,
        "checks": describe_checks(list_checks(outcome, now, unknown)),
    }
    if outcome.claims is not None:
        described["claims"] = _describe_claims(outcome.claims, now)
    return described


def _find_named_key(
    outcome: Allowed | Refused, request: CheckRequest, trust: TrustSnapshot
) -> NamedKey:
    """Return whose key the token names; nothing where no token was read."""
    route, policy, claims = outcome.route, outcome.policy, outcome.claims
    if route is None or policy is None:
        return NamedKey()
    if claims is not None:
        return NamedKey(policy.token.terms_of(claims.iss).name, outcome.kid)
    if isinstance(outcome, Allowed):
        return NamedKey()
    return find_named_key(request, route, policy.token, trust)


def _describe_outcome(outcome: Allowed | Refused, rule: Rule | None) -> dict[str, Any]:
    if isinstance(outcome, Allowed):
        shadowed = outcome.shadowed
        return {
            "decision": "allow",
            "reason": "",
            "status": outcome.answer.status,
            "auth_decision": decision_of(outcome.answer),
            "shadow_reason": "" if shadowed is None else shadowed.value,
            "challenge": "",
        }
    answer = _refusal(outcome, rule)
    return {
        "decision": "deny",
        "reason": outcome.reason.value,
        "status": answer.status,
        "auth_decision": "",
        "shadow_reason": "",
        "challenge": dict(answer.headers).get(b"WWW-Authenticate", b"").decode("ascii"),
    }


def _refusal(refused: Refused, rule: Rule | None) -> Answer:
    """Return the answer of the gate, but for its decision id."""
    reason, policy = refused.reason, refused.policy
    answer = REFUSALS_WITHOUT_BODY[reason]
    if policy is not None and policy.has_challenge(reason):
        return add_challenge(answer, challenge_parameters(reason, policy, rule))
    return answer


def _describe_claims(claims: VerifiedClaims, now: int) -> dict[str, Any]:
    return {
        "iss": claims.iss,
        "sub": claims.sub,
        "sid": claims.sid,
        "jti": claims.jti,
        "client_id": claims.client_id,
        "gen": claims.gen,
        "scope": " ".join(claims.scopes),
        "roles": list(claims.roles),
        "expires_in": int(claims.exp - now),
    }


def describe_rule(rule: Rule) -> dict[str, Any]:
    """Return what a rule matches, as its policy file has it, and whether it is open."""
    hosts = rule.hosts
    return {
        "number": rule.number,
        "path": "/" + "/".join(rule.pattern),
        "methods": sorted(rule.methods),
        "hosts": (
            []
            if hosts is None
            else sorted([*hosts.exact, *["*" + suffix for suffix in hosts.suffixes]])
        ),
        "public": rule.is_public,
        "optional": rule.is_optional,
    }


def name_rule(rule: Mapping[str, Any]) -> str:
    """Return a rule on one line: its number, methods, path and hosts.

    Args:
        rule: from `describe_rule`.
    """
    methods = ", ".join(rule["methods"]) or "any method"
    hosts = f" on {', '.join(rule['hosts'])}" if rule["hosts"] else ""
    return f"rule {rule['number']}: {methods} {rule['path']}{hosts}"


def describe_checks(results: list[CheckResult]) -> list[dict[str, str]]:
    """Return one object for each check, with a reason where it refused."""
    refused = (CheckOutcome.REFUSED, CheckOutcome.WOULD_REFUSE)
    return [
        {"check": result.check.value, "outcome": result.outcome.value}
        | ({"reason": result.reason} if result.outcome in refused else {})
        for result in results
    ]
