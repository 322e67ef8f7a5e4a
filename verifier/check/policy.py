"""Policies: the conditions on tokens, and the requirements of routes.

A policy without issuer or audience cannot be built, so no missing setting switches a
check off (R18). Rules match host, method and path in one canonical form; paths from
their beginning and segment by segment (R7, R8).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from types import MappingProxyType
from typing import Final, NamedTuple

from shared.claims import (
    ACCEPTED_TYPS,
    ALGORITHM,
    ALWAYS_REQUIRED,
    DEFAULT_LEEWAY,
    LONGEST_ACCESS_TTL,
    MAX_LEEWAY,
    OWN_ISSUER,
    REQUIRED_CLAIMS,
    is_identifier,
)
from shared.jose.algorithms import ALGORITHMS, canonical_name
from verifier.check.claims import ClaimNames, ClaimPath, Claims
from verifier.check.denials import Denied, DenyReason
from verifier.check.rules.requirements import NO_REQUIREMENTS, Requirements
from verifier.check.rules.rule import Rule, RuleTree
from verifier.check.rules.target_uri import canonical_host, canonical_segments

DEFAULT_POLICY: Final = "default"
#: The usual methods (RFC 9110, section 9; RFC 5789), decoded.
_METHODS: Final = {
    method.encode(): method
    for method in ("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS")
}


class PolicyError(ValueError):
    """A policy file cannot be used; the message names policy, field and rule."""


class ClaimHeader(NamedTuple):
    """An identity header that a policy adds to its allows.

    Attributes:
        name: the header's name.
        path: the claim with its value.
    """

    name: str
    path: ClaimPath


@dataclass(frozen=True, slots=True)
class IssuerTerms:
    """What the tokens of one issuer must be.

    Attributes:
        issuer: the exact `iss`.
        audience: one of the token's `aud`.
        name: in metrics, logs and policy files.
        algorithms: accepted `alg` header values.
        accepted_typs: accepted `typ` header values, lower case; an empty one stands
            for a header without `typ`.
        required_claims: claims that must be present.
        max_lifetime: the longest `exp - iat`, seconds. Revocations are kept that long.
        claims: where our facts are; None: where our own tokens have them.
    """

    issuer: str
    audience: str
    name: str = OWN_ISSUER
    algorithms: frozenset[str] = frozenset({ALGORITHM})
    accepted_typs: frozenset[str] = ACCEPTED_TYPS
    required_claims: frozenset[str] = REQUIRED_CLAIMS
    max_lifetime: int = LONGEST_ACCESS_TTL
    claims: ClaimNames | None = None

    def __post_init__(self) -> None:
        for name in ("issuer", "audience"):
            if not is_identifier(getattr(self, name)):
                raise PolicyError(f"{name}: must be text of 1..256 characters")
        for name in ("algorithms", "accepted_typs"):
            if not getattr(self, name):
                raise PolicyError(f"{name}: must not be empty")
        # There is no `none` and no HMAC (R14).
        unknown = {canonical_name(name) for name in self.algorithms} - ALGORITHMS.keys()
        if unknown:
            names = ", ".join(sorted(unknown))
            raise PolicyError(f"algorithms: no such signature algorithm: {names}")
        # Without them a token would not end, or could outlive its revocation (R18).
        if not self.required_claims >= ALWAYS_REQUIRED:
            missing = ", ".join(sorted(ALWAYS_REQUIRED - self.required_claims))
            raise PolicyError(f"required_claims: must have {missing}")


@dataclass(frozen=True, slots=True)
class TokenPolicy:
    """What makes a token acceptable, and what is kept of it.

    Attributes:
        issuers: the terms of each accepted issuer.
        leeway: seconds clocks may differ, 0..60.
        kept_claims: further claims that policies read.
        headers: identity headers besides those that every allow has.
        sole: the terms of the issuer, where only one is accepted; else None.
        accepts_own: tokens of our own issuer are accepted.
    """

    issuers: tuple[IssuerTerms, ...]
    leeway: int = DEFAULT_LEEWAY
    kept_claims: frozenset[ClaimPath] = frozenset()
    headers: tuple[ClaimHeader, ...] = ()
    sole: IssuerTerms | None = field(init=False, repr=False, compare=False)
    accepts_own: bool = field(init=False, repr=False, compare=False)
    _by_iss: Mapping[str, IssuerTerms] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        if not 0 <= self.leeway <= MAX_LEEWAY:
            raise PolicyError(f"leeway: must be 0..{MAX_LEEWAY} seconds")
        if not self.issuers:
            raise PolicyError("issuers: must not be empty")
        by_iss = {terms.issuer: terms for terms in self.issuers}
        if len(by_iss) < len(self.issuers):
            raise PolicyError("issuers: one issuer is there twice")
        sole = self.issuers[0] if len(self.issuers) == 1 else None
        object.__setattr__(self, "sole", sole)
        accepts_own = any(terms.name == OWN_ISSUER for terms in self.issuers)
        object.__setattr__(self, "accepts_own", accepts_own)
        object.__setattr__(self, "_by_iss", MappingProxyType(by_iss))

    @classmethod
    def own(
        cls, issuer: str, audience: str, leeway: int = DEFAULT_LEEWAY
    ) -> TokenPolicy:
        """Return the policy that accepts tokens of our own issuer and no others."""
        return cls((IssuerTerms(issuer, audience),), leeway)

    def terms_of(self, unverified_iss: str) -> IssuerTerms:
        """Return the terms of the issuer that a token names, compared exactly (R67).

        Raises:
            Denied: `issuer_mismatch`.
        """
        terms = self._by_iss.get(unverified_iss)
        if terms is None:
            raise Denied(DenyReason.ISSUER_MISMATCH)
        return terms


class ResourceMetadata(NamedTuple):
    """What OAuth clients learn about the resource behind a policy (RFC 9728).

    Attributes:
        url: the document's address, which the policy's challenges name (section 5.1).
        document: the document, JSON.
    """

    url: str
    document: bytes


@dataclass(frozen=True, slots=True)
class Policy:
    """What a route requires: a token policy, more of the token, and rules.

    Attributes:
        name: its name in the check path, `/p/<name>`.
        token: what makes a token acceptable.
        requirements: for every request that needs a token.
        rules: the first match decides. When there are rules and none matches, the
            request is refused.
        allows_stale: a stale revocation list is used instead of answering 503.
        allows_preflight: a CORS preflight passes without a token.
        is_public: without rules: no token is needed, and none is read (R61).
        is_optional: without rules: no token is needed; one that is there must be good.
        is_shadow: a good token passes whatever policy and rules require; what they
            would have refused is counted and logged (R65).
        has_decision_ids: an allow carries a decision id, as every refusal does.
        resource_metadata: named by the challenges; None for none.
        reads_token_always: no request passes without a token.
        asks_more: more than a good token is needed.
        is_recorded: allows are recorded, or some of them.
    """

    name: str
    token: TokenPolicy
    requirements: Requirements = NO_REQUIREMENTS
    rules: tuple[Rule, ...] = ()
    allows_stale: bool = False
    allows_preflight: bool = False
    is_public: bool = False
    is_optional: bool = False
    is_shadow: bool = False
    has_decision_ids: bool = False
    resource_metadata: ResourceMetadata | None = None
    reads_token_always: bool = field(init=False, repr=False)
    asks_more: bool = field(init=False, repr=False)
    is_recorded: bool = field(init=False, repr=False)
    _reads_hosts: bool = field(init=False, repr=False)
    _tree: RuleTree = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        numbered = [replace(rule, number=n) for n, rule in enumerate(self.rules, 1)]
        object.__setattr__(self, "rules", tuple(numbered))
        open_rules = [rule for rule in self.rules if rule.is_public or rule.is_optional]
        is_open = self.is_public or self.is_optional or self.allows_preflight
        object.__setattr__(self, "reads_token_always", not open_rules and not is_open)
        asks_more = bool(self.rules) or self.requirements != NO_REQUIREMENTS
        object.__setattr__(self, "asks_more", asks_more)
        is_recorded = self.is_shadow or self.has_decision_ids
        object.__setattr__(self, "is_recorded", is_recorded)
        reads_hosts = any(rule.hosts is not None for rule in self.rules)
        object.__setattr__(self, "_reads_hosts", reads_hosts)
        object.__setattr__(self, "_tree", RuleTree(self.rules))

    def find_rule(
        self, method: bytes | None, host: bytes | None, uri: bytes | None
    ) -> Rule | None:
        """Return the first rule that matches; None when the policy has no rules.

        Args:
            method: the client's method; None when the gateway sent none.
            host: the client's host; None when the gateway sent none.
            uri: the client's path and query; None when the gateway sent none.

        Raises:
            Denied: `rule_missing`, `forwarded_missing`, `forwarded_malformed`,
                `path_ambiguous`.
        """
        if not self.rules:
            return None
        if not method or not uri:
            raise Denied(DenyReason.FORWARDED_MISSING)
        text = _METHODS.get(method)
        if text is None:
            if not method.isalpha() or not method.isupper() or len(method) > 32:
                raise Denied(DenyReason.FORWARDED_MALFORMED)
            text = method.decode("ascii")
        name = ""
        if self._reads_hosts:
            if not host:
                raise Denied(DenyReason.FORWARDED_MISSING)
            name = canonical_host(host)
        segments = canonical_segments(uri)
        rule = self._tree.find(text, name, segments)
        if rule is None:
            raise Denied(DenyReason.RULE_MISSING)
        return rule

    def has_challenge(self, reason: DenyReason) -> bool:
        """Return whether a refusal's challenge has parameters of this policy."""
        return (
            self.resource_metadata is not None
            or reason is DenyReason.AUTHENTICATION_TOO_OLD
        )

    def permit(self, claims: Claims, rule: Rule | None, now: int) -> None:
        """Check that the policy and its rule permit a request with these claims.

        Args:
            claims: verified claims.
            rule: the rule that matches; None when the policy has no rules.
            now: Unix seconds.

        Raises:
            Denied: as `Requirements.check`.
        """
        if rule is not None and rule.is_optional:
            # The request would pass without a token, so nothing is asked of one.
            return
        self.requirements.check(claims, now, self.token.leeway)
        if rule is not None:
            rule.requirements.check(claims, now, self.token.leeway)


class KnownIssuer(NamedTuple):
    """Another issuer than our own, which policies may accept.

    Attributes:
        terms: what its tokens must be.
        jwks_url: of its keys; empty: the one that its OpenID configuration names.
    """

    terms: IssuerTerms
    jwks_url: str


@dataclass(frozen=True, slots=True)
class PolicyBook:
    """All policies of one verifier.

    Attributes:
        policies: by name.
        digest: SHA-256 of the policy file, in hex; empty without one.
        issuers: every other issuer of the issuers file.
        issuers_digest: SHA-256 of the issuers file, in hex; empty without one.
    """

    policies: Mapping[str, Policy] = field(repr=False)
    digest: str = ""
    issuers: tuple[KnownIssuer, ...] = field(default=(), repr=False)
    issuers_digest: str = ""

    @property
    def allows_stale(self) -> bool:
        """Whether any policy accepts a stale revocation list."""
        return any(policy.allows_stale for policy in self.policies.values())

    def find(self, name: str) -> Policy:
        """Return the policy of that name.

        Raises:
            Denied: `policy_unknown`: the gateway's configuration names a missing
                policy.
        """
        policy = self.policies.get(name)
        if policy is None:
            raise Denied(DenyReason.POLICY_UNKNOWN)
        return policy
