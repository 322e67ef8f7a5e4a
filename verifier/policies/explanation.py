"""Every check of one decision, in order, with its outcome (R66).

`decide` gives one outcome; this module only spells it out. It decides nothing: a closed
table says which check each reason belongs to, and the order is the one in which
`decide` makes the checks. What comes before the check that refused has passed.
"""

from __future__ import annotations

from collections.abc import Mapping
from collections.abc import Set as AbstractSet
from enum import StrEnum
from types import MappingProxyType
from typing import Final, NamedTuple

from verifier.check.claims import Claims
from verifier.check.decision import Allowed, Refused
from verifier.check.denials import Denied, DenyReason
from verifier.check.policy import Policy
from verifier.check.rules.requirements import Requirements


class Check(StrEnum):
    """One check of a decision; docs/policies.md describes each."""

    # room for the connection, and no fault of ours
    GATE = "gate"
    CHECK_PATH = "check_path"
    POLICY = "policy"
    PEER = "peer"
    FORWARDED = "forwarded"
    # the trust
    KEYS_AGE = "keys_age"
    REVOCATIONS_AGE = "revocations_age"
    # one credential; where the token is read first, also each forwarded header once
    HEADERS = "headers"
    # the token
    TOKEN_FORM = "token_form"  # noqa: S105
    TOKEN_HEADER = "token_header"  # noqa: S105
    TOKEN_KEY = "token_key"  # noqa: S105
    TOKEN_SIGNATURE = "token_signature"  # noqa: S105
    TOKEN_CLAIMS = "token_claims"  # noqa: S105
    TOKEN_ISSUER = "token_issuer"  # noqa: S105
    TOKEN_AUDIENCE = "token_audience"  # noqa: S105
    TOKEN_LIFETIME = "token_lifetime"  # noqa: S105
    TOKEN_TIME = "token_time"  # noqa: S105
    REVOCATION = "revocation"
    # the client's request, and the rule that matches it
    REQUEST = "request"
    RULE = "rule"
    # what the policy asks of every token, then what its rule asks besides
    POLICY_SCOPES = "policy_scopes"
    POLICY_ROLES = "policy_roles"
    POLICY_CLIENT_IDS = "policy_client_ids"
    POLICY_CLAIMS = "policy_claims"
    POLICY_MAX_AGE = "policy_max_age"
    POLICY_MAX_AUTH_AGE = "policy_max_auth_age"
    RULE_SCOPES = "rule_scopes"
    RULE_ROLES = "rule_roles"
    RULE_CLIENT_IDS = "rule_client_ids"
    RULE_CLAIMS = "rule_claims"
    RULE_MAX_AGE = "rule_max_age"
    RULE_MAX_AUTH_AGE = "rule_max_auth_age"


class CheckOutcome(StrEnum):
    """How one check came out."""

    PASSED = "passed"
    REFUSED = "refused"
    # refused, but the policy is in shadow mode
    WOULD_REFUSE = "would_refuse"
    # an earlier check refused
    NOT_REACHED = "not_reached"
    # the request passes without a token, or the policy asks nothing here
    NOT_NEEDED = "not_needed"
    # taken for granted: who asks for an explanation cannot know
    NOT_CHECKED = "not_checked"


class CheckResult(NamedTuple):
    """One line of an explanation.

    Attributes:
        check: the check.
        outcome: how it came out.
        reason: why it refused, or would outside of shadow mode; else empty.
    """

    check: Check
    outcome: CheckOutcome
    reason: str = ""


#: The check that gives each reason. A reason of the requirements may be one of the rule
#: as well. `token_malformed` also says that the signature or the payload is not
#: canonical base64url, which is seen when they are decoded; it counts as the form all
#: the same, and the checks between are then shown as not reached. So it is with
#: `alg_not_allowed` where the key is for another algorithm than the header names.
CHECK_OF: Final[Mapping[DenyReason, Check]] = MappingProxyType(
    {
        DenyReason.OVERLOADED: Check.GATE,
        DenyReason.INTERNAL_ERROR: Check.GATE,
        DenyReason.ROUTE_UNKNOWN: Check.CHECK_PATH,
        DenyReason.POLICY_UNKNOWN: Check.POLICY,
        DenyReason.POLICY_UNNAMED: Check.POLICY,
        DenyReason.PEER_UNTRUSTED: Check.PEER,
        DenyReason.FORWARDED_REPEATED: Check.FORWARDED,
        DenyReason.NO_KEYS: Check.KEYS_AGE,
        DenyReason.STALE: Check.REVOCATIONS_AGE,
        DenyReason.CREDENTIAL_MISSING: Check.HEADERS,
        DenyReason.CREDENTIAL_MALFORMED: Check.HEADERS,
        DenyReason.CREDENTIAL_REPEATED: Check.HEADERS,
        DenyReason.TOKEN_TOO_LARGE: Check.TOKEN_FORM,
        DenyReason.TOKEN_MALFORMED: Check.TOKEN_FORM,
        DenyReason.HEADER_MALFORMED: Check.TOKEN_FORM,
        DenyReason.HEADER_FORBIDDEN: Check.TOKEN_HEADER,
        DenyReason.ALG_NOT_ALLOWED: Check.TOKEN_HEADER,
        DenyReason.TYP_NOT_ALLOWED: Check.TOKEN_HEADER,
        DenyReason.KID_MISSING: Check.TOKEN_KEY,
        DenyReason.KID_UNKNOWN: Check.TOKEN_KEY,
        DenyReason.SIGNATURE_INVALID: Check.TOKEN_SIGNATURE,
        DenyReason.CLAIMS_MALFORMED: Check.TOKEN_CLAIMS,
        DenyReason.CLAIM_MISSING: Check.TOKEN_CLAIMS,
        DenyReason.ISSUER_MISMATCH: Check.TOKEN_ISSUER,
        DenyReason.AUDIENCE_MISMATCH: Check.TOKEN_AUDIENCE,
        DenyReason.LIFETIME_TOO_LONG: Check.TOKEN_LIFETIME,
        DenyReason.EXPIRED: Check.TOKEN_TIME,
        DenyReason.NOT_YET_VALID: Check.TOKEN_TIME,
        DenyReason.REVOKED_JTI: Check.REVOCATION,
        DenyReason.REVOKED_SID: Check.REVOCATION,
        DenyReason.REVOKED_USER: Check.REVOCATION,
        DenyReason.REVOKED_CLIENT: Check.REVOCATION,
        DenyReason.REVOKED_KID: Check.REVOCATION,
        DenyReason.FORWARDED_MISSING: Check.REQUEST,
        DenyReason.FORWARDED_MALFORMED: Check.REQUEST,
        DenyReason.PATH_AMBIGUOUS: Check.REQUEST,
        DenyReason.RULE_MISSING: Check.RULE,
        DenyReason.SCOPE_INSUFFICIENT: Check.POLICY_SCOPES,
        DenyReason.ROLE_MISSING: Check.POLICY_ROLES,
        DenyReason.CLIENT_NOT_ALLOWED: Check.POLICY_CLIENT_IDS,
        DenyReason.CLAIM_MISMATCH: Check.POLICY_CLAIMS,
        DenyReason.TOKEN_TOO_OLD: Check.POLICY_MAX_AGE,
        DenyReason.AUTHENTICATION_TOO_OLD: Check.POLICY_MAX_AUTH_AGE,
    }
)
_OF_RULE: Final[Mapping[Check, Check]] = MappingProxyType(
    {
        Check.POLICY_SCOPES: Check.RULE_SCOPES,
        Check.POLICY_ROLES: Check.RULE_ROLES,
        Check.POLICY_CLIENT_IDS: Check.RULE_CLIENT_IDS,
        Check.POLICY_CLAIMS: Check.RULE_CLAIMS,
        Check.POLICY_MAX_AGE: Check.RULE_MAX_AGE,
        Check.POLICY_MAX_AUTH_AGE: Check.RULE_MAX_AUTH_AGE,
    }
)
_OF_POLICY: Final = {of_rule: of_policy for of_policy, of_rule in _OF_RULE.items()}
_ARRIVAL: Final = (Check.GATE, Check.CHECK_PATH, Check.POLICY, Check.PEER)
_TOKEN: Final = (
    Check.KEYS_AGE,
    Check.REVOCATIONS_AGE,
    Check.HEADERS,
    Check.TOKEN_FORM,
    Check.TOKEN_HEADER,
    Check.TOKEN_KEY,
    Check.TOKEN_SIGNATURE,
    Check.TOKEN_CLAIMS,
    Check.TOKEN_ISSUER,
    Check.TOKEN_AUDIENCE,
    Check.TOKEN_LIFETIME,
    Check.TOKEN_TIME,
    Check.REVOCATION,
)
#: Of a policy that accepts several issuers: the token says whose trust counts (R67).
_TOKEN_OF_SEVERAL: Final = (
    Check.HEADERS,
    Check.TOKEN_FORM,
    Check.TOKEN_ISSUER,
    Check.TOKEN_HEADER,
    Check.KEYS_AGE,
    Check.TOKEN_KEY,
    Check.TOKEN_SIGNATURE,
    Check.TOKEN_CLAIMS,
    Check.TOKEN_AUDIENCE,
    Check.TOKEN_LIFETIME,
    Check.REVOCATIONS_AGE,
    Check.TOKEN_TIME,
    Check.REVOCATION,
)
_BEFORE_MATCH: Final = (*_ARRIVAL, *_TOKEN)
_MATCH: Final = (Check.REQUEST, Check.RULE)
_ASKED: Final = (*_OF_RULE, *_OF_RULE.values())


def _orders(token: tuple[Check, ...]) -> tuple[tuple[Check, ...], ...]:
    """Return the orders in which these checks of the token stand."""
    return (
        # Every request needs a token. Forwarded headers are read together with it, and
        # their repetition counts as a fault of `headers`.
        (*_ARRIVAL, *token, *_MATCH, *_ASKED),
        # Some requests need none, so the rule is looked for first (R61).
        (*_ARRIVAL, Check.FORWARDED, *_MATCH, *token, *_ASKED),
        # So it is in shadow mode. There a missing rule is judged after the token.
        (*_ARRIVAL, Check.FORWARDED, *token, *_MATCH, *_ASKED),
    )


#: The orders of the checks. Each has every check, but for `forwarded`. Those of
#: policies that accept one issuer come first, then those of several.
ORDERS: Final = (*_orders(_TOKEN), *_orders(_TOKEN_OF_SEVERAL))
_TOKEN_FIRST, _REQUEST_FIRST, _SHADOW = range(3)
_OF_SEVERAL: Final = 3

#: Of a request that is only described: no gateway sent it over a connection.
PRESUMED: Final = frozenset({Check.GATE, Check.PEER})


def list_checks(
    outcome: Allowed | Refused, now: int, unknown: AbstractSet[Check] = frozenset()
) -> list[CheckResult]:
    """Return every check of a decision, in the order in which it made them.

    Args:
        outcome: from `decide`, or of a connection that was refused.
        now: Unix seconds of the decision.
        unknown: checks whose passing says nothing here; they become `not_checked`.

    Returns:
        At most one result is `refused` or `would_refuse`; all before it are `passed`,
        `not_needed` or `not_checked`, all after it are `not_reached`.
    """
    reason = _find_reason(outcome)
    results = unpack_checks(pack_checks(outcome, now), reason or "")
    return [
        (
            CheckResult(result.check, CheckOutcome.NOT_CHECKED)
            if result.check in unknown and result.outcome is CheckOutcome.PASSED
            else result
        )
        for result in results
    ]


#: One letter for each outcome.
_PASSED, _REFUSED, _WOULD_REFUSE, _NOT_REACHED, _NOT_NEEDED = "prwxn"
_WORDS: Final = {
    _PASSED: CheckOutcome.PASSED,
    _REFUSED: CheckOutcome.REFUSED,
    _WOULD_REFUSE: CheckOutcome.WOULD_REFUSE,
    _NOT_REACHED: CheckOutcome.NOT_REACHED,
    _NOT_NEEDED: CheckOutcome.NOT_NEEDED,
}


def pack_checks(outcome: Allowed | Refused, now: int) -> str:
    """Return the results of `list_checks` in few bytes, without their reason.

    It runs for every refusal that is kept, and most refusals come early.

    Returns:
        The number of the order, then one letter for each check.
    """
    number = _find_order(outcome.policy)
    order = ORDERS[number]
    reason = _find_reason(outcome)
    if reason is None:
        return f"{number}{_pack_needed(order, outcome)}"
    place = order.index(_find_check(outcome, reason, order, now))
    before = _pack_needed(order[:place], outcome)
    letter = _REFUSED if isinstance(outcome, Refused) else _WOULD_REFUSE
    return f"{number}{before}{letter}{_NOT_REACHED * (len(order) - place - 1)}"


def _pack_needed(checks: tuple[Check, ...], outcome: Allowed | Refused) -> str:
    if checks == _BEFORE_MATCH[: len(checks)] and isinstance(outcome, Refused):
        return _PASSED * len(checks)
    return "".join(
        [_PASSED if _is_needed(check, outcome) else _NOT_NEEDED for check in checks]
    )


def unpack_checks(packed: str, reason: str) -> list[CheckResult]:
    """Return the results of `list_checks`.

    Args:
        packed: from `pack_checks`.
        reason: of the one check that refused, or would; empty for none.
    """
    refused = (_REFUSED, _WOULD_REFUSE)
    return [
        CheckResult(check, _WORDS[letter], reason if letter in refused else "")
        for check, letter in zip(ORDERS[int(packed[0])], packed[1:], strict=True)
    ]


def _find_reason(outcome: Allowed | Refused) -> DenyReason | None:
    return outcome.reason if isinstance(outcome, Refused) else outcome.shadowed


def _find_order(policy: Policy | None) -> int:
    if policy is None:
        return _TOKEN_FIRST
    of_several = _OF_SEVERAL if policy.token.sole is None else 0
    if policy.reads_token_always:
        return _TOKEN_FIRST + of_several
    return (_SHADOW if policy.is_shadow else _REQUEST_FIRST) + of_several


def _find_check(
    outcome: Allowed | Refused,
    reason: DenyReason,
    order: tuple[Check, ...],
    now: int,
) -> Check:
    """Return the check that gave the reason."""
    check = CHECK_OF[reason]
    if check not in order:
        return Check.HEADERS
    if check not in _OF_RULE:
        return check
    policy, claims = outcome.policy, outcome.claims
    if policy is not None and claims is not None and _permits(policy, claims, now):
        return _OF_RULE[check]
    return check


def _permits(policy: Policy, claims: Claims, now: int) -> bool:
    """Return whether the policy permits what its rule refused."""
    try:
        policy.requirements.check(claims, now, policy.token.leeway)
    except Denied:
        return False
    return True


def _is_needed(check: Check, outcome: Allowed | Refused) -> bool:
    """Return whether this decision needed the check."""
    policy, rule = outcome.policy, outcome.rule
    is_anonymous = isinstance(outcome, Allowed) and outcome.claims is None
    if check in _MATCH:
        if policy is None or not policy.rules:
            return False
        # A preflight passes before a rule is looked for.
        return not is_anonymous or rule is not None
    if is_anonymous:
        return check not in _TOKEN and check not in _ASKED
    if check not in _ASKED:
        return True
    if policy is None or (rule is not None and rule.is_optional):
        return False
    if check in _OF_RULE:
        return _asks(policy.requirements, check)
    return rule is not None and _asks(rule.requirements, _OF_POLICY[check])


def _asks(asked: Requirements, check: Check) -> bool:
    """Return whether something is asked here; `check` is one of the policy's."""
    match check:
        case Check.POLICY_SCOPES:
            return bool(asked.required_scopes or asked.any_scopes)
        case Check.POLICY_ROLES:
            return bool(asked.required_roles)
        case Check.POLICY_CLIENT_IDS:
            return bool(asked.client_ids)
        case Check.POLICY_CLAIMS:
            return bool(asked.claims)
        case Check.POLICY_MAX_AGE:
            return bool(asked.max_age)
        case _:
            return bool(asked.max_auth_age)
