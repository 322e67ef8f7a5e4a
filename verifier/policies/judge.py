"""Decides logged requests by a policy file, with the code of the gate (R66).

`decide` finds the supposed tokens in a cache of facts, where the gate has the tokens
that it has verified. From there on nothing is different: preflights, open rules, the
age of the trust, scopes, roles, claims and ages are decided by the same lines.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from enum import Enum
from functools import lru_cache
from typing import Final, NamedTuple

from shared.claims import OWN_ISSUER
from verifier.check.answers import decision_of
from verifier.check.cache import FactCache
from verifier.check.decision import Allowed, CheckPaths, Fact, Times, decide
from verifier.check.denials import REFUSALS, Denied, DenyReason
from verifier.check.forward_auth import PlainCheckRequest
from verifier.check.policy import Policy, PolicyBook
from verifier.check.revocations import RevocationIndex
from verifier.check.rules.rule import Rule
from verifier.check.trust import IssuerTrust, KeySet, TrustSnapshot
from verifier.check.verify import SignedClaims, SignedToken
from verifier.policies.access_log import LoggedRequest
from verifier.policies.possibilities import Possibility, SupposedToken

#: Boot-time seconds of every decision.
_BOOTTIME: Final = 1.0
_SUPPOSED: Final = b"Bearer supposed"
#: A credential that is no token.
_BAD: Final = b"Bearer bad"
#: Supposed tokens are made again when they are needed again.
_FACTS: Final = 512
_CACHE_BYTES: Final = 1_048_576


class TrustAge(Enum):
    """How old keys and revocations are: until when the list is fresh, and the keys."""

    FRESH = (_BOOTTIME + 1, _BOOTTIME + 1)
    STALE = (_BOOTTIME - 0.5, _BOOTTIME + 1)
    NO_KEYS = (_BOOTTIME - 0.5, _BOOTTIME - 0.5)


class Outcome(NamedTuple):
    """What a policy file decides about a request.

    Attributes:
        status: 200, 401, 403 or 503.
        word: `X-Auth-Decision` of an allow, or the reason of a refusal.
    """

    status: int
    word: str

    @property
    def is_allowed(self) -> bool:
        """Whether the request passes."""
        return self.status == 200


class RuleName(NamedTuple):
    """A rule as people recognise it in two versions of a file: by what it matches.

    Attributes:
        policy: its policy.
        path: its pattern; empty for what `note` says.
        methods: sorted; empty for any.
        hosts: sorted, with `*.`; empty for any.
        note: what this is when it is no rule.
    """

    policy: str
    path: str = ""
    methods: tuple[str, ...] = ()
    hosts: tuple[str, ...] = ()
    note: str = ""


class Match(NamedTuple):
    """What decides about a request.

    Attributes:
        name: of the rule.
        number: of the rule in its policy, from 1; 0 when it is no rule.
        policy: None when the file has none of that name.
        rule: None when no rule matches, or the policy has none.
    """

    name: RuleName
    number: int = 0
    policy: Policy | None = None
    rule: Rule | None = None


class Judge:
    """Decides requests by one policy file.

    Args:
        policies: by name.
        now: Unix seconds of every decision.
    """

    def __init__(self, policies: Mapping[str, Policy], now: int) -> None:
        self._policies = policies
        self._now = now
        self._caches = {
            policy.token: FactCache(max_entries=_FACTS, max_bytes=_CACHE_BYTES)
            for policy in policies.values()
        }
        self._paths = CheckPaths(PolicyBook(policies), self._caches)
        self._matches = {
            id(rule): Match(_name(policy, rule), number, policy, rule)
            for policy in policies.values()
            for number, rule in enumerate(policy.rules, 1)
        }
        self._fact = lru_cache(_FACTS)(self._make_fact)
        issuers = {
            terms.issuer: terms.name == OWN_ISSUER
            for policy in policies.values()
            for terms in policy.token.issuers
        }
        self._trusts = {age: _trust(issuers, *age.value) for age in TrustAge}

    def match(self, request: LoggedRequest) -> Match:
        """Return the rule that decides about a request."""
        policy = self._policies.get(request.policy)
        if policy is None:
            # A log may name any number of policies, but it gets one row.
            return Match(RuleName("", note="unknown policy"))
        method, host, path = (
            text.encode() or None
            for text in (request.method, request.host, request.path)
        )
        try:
            rule = policy.find_rule(method, host, path)
        except Denied:
            return Match(RuleName(policy.name, note="no rule"), policy=policy)
        if rule is None:
            return Match(RuleName(policy.name, note="every request"), policy=policy)
        return self._matches[id(rule)]

    def decide(
        self, request: LoggedRequest, supposed: Possibility, age: TrustAge
    ) -> Outcome:
        """Return what the policy file decides about a request.

        Args:
            request: from the log.
            supposed: what the log leaves open.
            age: of the keys and revocations.
        """
        headers = _headers(request, is_preflight=supposed.is_preflight)
        is_another = False
        if supposed.has_credential:
            credential = _BAD
            policy = self._policies.get(request.policy)
            if supposed.token is not None and policy is not None:
                is_another = not supposed.token.is_for(policy.token)
                if not is_another:
                    credential = _SUPPOSED
                    fact = self._fact(supposed.token, policy.name)
                    self._caches[policy.token].keep(credential, fact)
            headers.append((b"authorization", credential))
        target = b"/verify/nginx/p/" + request.policy.encode()
        check = PlainCheckRequest(b"GET", target, headers, peer_is_trusted=True)
        times = Times(self._now, _BOOTTIME)
        outcome = decide(check, self._trusts[age], self._paths, times)
        if isinstance(outcome, Allowed):
            return Outcome(200, decision_of(outcome.answer))
        refusal = REFUSALS[outcome.reason]
        if outcome.reason is DenyReason.TOKEN_MALFORMED:
            # The text that stands for it has no form. What was wrong with a token that
            # was not good is not known, except that it is for another audience.
            word = DenyReason.AUDIENCE_MISMATCH.value if is_another else refusal.error
            return Outcome(refusal.status, word)
        return Outcome(refusal.status, outcome.reason.value)

    def _make_fact(self, token: SupposedToken, policy_name: str) -> Fact:
        policy = self._policies[policy_name].token
        # No issuer signed this: it decides about no request of a client.
        claims = SignedClaims(token.claims(self._now))
        signed = SignedToken(claims, "supposed", _NO_KEYS.version)
        return Fact(signed, policy.headers)


def _headers(
    request: LoggedRequest, *, is_preflight: bool
) -> list[tuple[bytes, bytes]]:
    """Return what nginx would send about a request, without its credential."""
    sent = [
        ("x-original-method", request.method),
        ("x-original-uri", request.path),
        ("x-original-host", request.host),
    ]
    if is_preflight:
        sent += [("origin", "supposed"), ("access-control-request-method", "GET")]
    return [(name.encode(), text.encode()) for name, text in sent if text]


_NO_KEYS: Final = KeySet()


def _trust(
    issuers: Mapping[str, bool], fresh_until: float, keys_until: float
) -> TrustSnapshot:
    """Return the trust in each `iss`, by whether it is our own issuer.

    No feed names tokens of other issuers, so their revocations are never too old.
    """
    nothing = RevocationIndex()
    held = {
        iss: IssuerTrust(
            _NO_KEYS, nothing, fresh_until if is_own else math.inf, keys_until, True
        )
        for iss, is_own in issuers.items()
    }
    return TrustSnapshot(next(iter(held.values())), held)


def _name(policy: Policy, rule: Rule) -> RuleName:
    hosts: tuple[str, ...] = ()
    if rule.hosts is not None:
        suffixes = [f"*{suffix}" for suffix in rule.hosts.suffixes]
        hosts = (*sorted(rule.hosts.exact), *sorted(suffixes))
    path = "/" + "/".join(rule.pattern)
    return RuleName(policy.name, path, tuple(sorted(rule.methods)), hosts)
