"""Policies: the conditions on tokens, and the requirements of routes.

A policy without issuer or audience cannot be built, so no missing setting switches a
check off (R18). Rules match host, method and path in one canonical form; paths from
their beginning and segment by segment (R7, R8).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final, NamedTuple

from shared.claims import (
    ACCEPTED_TYPS,
    DEFAULT_LEEWAY,
    LONGEST_ACCESS_TTL,
    MAX_LEEWAY,
    REQUIRED_CLAIMS,
    is_identifier,
)
from verifier.check.claims import ClaimPath, Claims, Scalar
from verifier.check.denials import Denied, DenyReason
from verifier.check.target_uri import canonical_host, canonical_segments

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
class TokenPolicy:
    """What makes a token acceptable, and what is kept of it.

    Attributes:
        issuer: the exact `iss`.
        audience: one of the token's `aud`.
        leeway: seconds clocks may differ, 0..60.
        accepted_typs: accepted `typ` header values, lower case.
        required_claims: claims that must be present.
        max_lifetime: the longest `exp - iat`, seconds. Revocations are kept that long.
        kept_claims: further claims that policies read.
        headers: identity headers besides those that every allow has.
    """

    issuer: str
    audience: str
    leeway: int = DEFAULT_LEEWAY
    accepted_typs: frozenset[str] = ACCEPTED_TYPS
    required_claims: frozenset[str] = REQUIRED_CLAIMS
    max_lifetime: int = LONGEST_ACCESS_TTL
    kept_claims: frozenset[ClaimPath] = frozenset()
    headers: tuple[ClaimHeader, ...] = ()

    def __post_init__(self) -> None:
        for name in ("issuer", "audience"):
            if not is_identifier(getattr(self, name)):
                raise PolicyError(f"{name}: must be text of 1..256 characters")
        if not 0 <= self.leeway <= MAX_LEEWAY:
            raise PolicyError(f"leeway: must be 0..{MAX_LEEWAY} seconds")
        if not self.accepted_typs:
            raise PolicyError("accepted_typs: must not be empty")


@dataclass(frozen=True, slots=True)
class Requirements:
    """What a token that passed the seven checks must have besides.

    Attributes:
        required_scopes: all of these are needed.
        any_scopes: one of these is needed; empty for none.
        required_roles: one of these is needed; empty for none.
        client_ids: the client is one of these; empty for any.
        claims: one of the values is needed at each path.
        max_age: seconds since the token was minted (`iat`), at most; 0 for any.
        max_auth_age: seconds since the person logged in (`auth_time`), at most; 0 for
            any.
    """

    required_scopes: frozenset[str] = frozenset()
    any_scopes: frozenset[str] = frozenset()
    required_roles: frozenset[str] = frozenset()
    client_ids: frozenset[str] = frozenset()
    claims: tuple[tuple[ClaimPath, tuple[Scalar, ...]], ...] = ()
    max_age: int = 0
    max_auth_age: int = 0

    def check(self, claims: Claims, now: int, leeway: int) -> None:
        """Check that the claims have all of this.

        Args:
            claims: verified claims.
            now: Unix seconds.
            leeway: seconds clocks may differ.

        Raises:
            Denied: `scope_insufficient`, `role_missing`, `client_not_allowed`,
                `claim_mismatch`, `token_too_old`, `authentication_too_old`.
        """
        if self is NO_REQUIREMENTS:
            return
        if not self.required_scopes.issubset(claims.scopes):
            raise Denied(DenyReason.SCOPE_INSUFFICIENT)
        if self.any_scopes and self.any_scopes.isdisjoint(claims.scopes):
            raise Denied(DenyReason.SCOPE_INSUFFICIENT)
        if self.required_roles and self.required_roles.isdisjoint(claims.roles):
            raise Denied(DenyReason.ROLE_MISSING)
        if self.client_ids and claims.client_id not in self.client_ids:
            raise Denied(DenyReason.CLIENT_NOT_ALLOWED)
        for path, accepted in self.claims:
            if not _have_one(claims.kept.get(path, ()), accepted):
                raise Denied(DenyReason.CLAIM_MISMATCH)
        if self.max_age and now - leeway > claims.iat + self.max_age:
            raise Denied(DenyReason.TOKEN_TOO_OLD)
        # Without `auth_time` it is 0: no login is known (RFC 9470, section 6.2). One in
        # the future is no login either.
        if self.max_auth_age and not (
            now - leeway - self.max_auth_age <= claims.auth_time <= now + leeway
        ):
            raise Denied(DenyReason.AUTHENTICATION_TOO_OLD)


def _have_one(values: tuple[Scalar, ...], accepted: tuple[Scalar, ...]) -> bool:
    """Return whether a value is accepted. True is no 1 here, as in JSON."""
    for value in values:
        for wanted in accepted:
            if value == wanted and type(value) is type(wanted):
                return True
    return False


#: Asks nothing.
NO_REQUIREMENTS: Final = Requirements()


@dataclass(frozen=True, slots=True)
class Hosts:
    """The hosts that a rule matches, in canonical form.

    Attributes:
        exact: whole names.
        suffixes: ends of names, each with its leading dot; one or more labels precede.
    """

    exact: frozenset[str] = frozenset()
    suffixes: tuple[str, ...] = ()

    def match(self, host: str) -> bool:
        """Return whether a canonical host is one of these."""
        return host in self.exact or (
            bool(self.suffixes) and host.endswith(self.suffixes)
        )


@dataclass(frozen=True, slots=True)
class Rule:
    """One rule of a policy: the requests it matches, and their further requirements.

    Attributes:
        pattern: segments; `*` matches one segment, a last `**` any number.
        methods: upper-case methods; empty for any.
        hosts: None for any.
        requirements: besides those of the policy.
        is_public: no token is needed, and none is read (R61).
        is_optional: no token is needed; one that is there must be good.
    """

    pattern: tuple[str, ...]
    methods: frozenset[str] = frozenset()
    hosts: Hosts | None = None
    requirements: Requirements = NO_REQUIREMENTS
    is_public: bool = False
    is_optional: bool = False


class PatternNode:
    """One segment in the tree of a policy's patterns.

    Attributes:
        by_segment: the next nodes by their segment.
        by_any: the next node for `*`.
        ends: rules whose pattern ends here, with their numbers.
        opens: rules whose pattern ends here with `**`, with their numbers.
    """

    __slots__ = ("by_any", "by_segment", "ends", "opens")

    def __init__(self) -> None:
        self.by_segment: dict[str, PatternNode] = {}
        self.by_any: PatternNode | None = None
        self.ends: list[tuple[int, Rule]] = []
        self.opens: list[tuple[int, Rule]] = []


class RuleTree:
    """Finds the first rule that matches, in steps per segment and not per rule.

    Args:
        rules: in the order in which they are tried.
    """

    __slots__ = ("_root",)

    def __init__(self, rules: Sequence[Rule]) -> None:
        self._root = PatternNode()
        for number, rule in enumerate(rules):
            node = self._root
            is_open = rule.pattern[-1:] == ("**",)
            for segment in rule.pattern[:-1] if is_open else rule.pattern:
                if segment != "*":
                    node = node.by_segment.setdefault(segment, PatternNode())
                    continue
                if node.by_any is None:
                    node.by_any = PatternNode()
                node = node.by_any
            (node.opens if is_open else node.ends).append((number, rule))

    def find(self, method: str, host: str, segments: Sequence[str]) -> Rule | None:
        """Return the first rule that matches a method, canonical host and path."""
        nodes = [self._root]
        numbered = self._root.opens
        for segment in segments:
            following: list[PatternNode] = []
            for node in nodes:
                child = node.by_segment.get(segment)
                if child is not None:
                    following.append(child)
                    if child.opens:
                        numbered = numbered + child.opens
                child = node.by_any
                if child is not None:
                    following.append(child)
                    if child.opens:
                        numbered = numbered + child.opens
            nodes = following
        for node in nodes:
            if node.ends:
                numbered = numbered + node.ends
        best = -1
        found: Rule | None = None
        for number, rule in numbered:
            if (
                (found is None or number < best)
                and (not rule.methods or method in rule.methods)
                and (rule.hosts is None or rule.hosts.match(host))
            ):
                best, found = number, rule
        return found


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
        reads_token_always: no request passes without a token.
        asks_more: more than a good token is needed.
    """

    name: str
    token: TokenPolicy
    requirements: Requirements = NO_REQUIREMENTS
    rules: tuple[Rule, ...] = ()
    allows_stale: bool = False
    allows_preflight: bool = False
    is_public: bool = False
    is_optional: bool = False
    reads_token_always: bool = field(init=False, repr=False)
    asks_more: bool = field(init=False, repr=False)
    _reads_hosts: bool = field(init=False, repr=False)
    _tree: RuleTree = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        open_rules = [rule for rule in self.rules if rule.is_public or rule.is_optional]
        is_open = self.is_public or self.is_optional or self.allows_preflight
        object.__setattr__(self, "reads_token_always", not open_rules and not is_open)
        asks_more = bool(self.rules) or self.requirements != NO_REQUIREMENTS
        object.__setattr__(self, "asks_more", asks_more)
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


@dataclass(frozen=True, slots=True)
class PolicyBook:
    """All policies of one verifier.

    Attributes:
        policies: by name.
        digest: SHA-256 of the policy file, in hex; empty without one.
    """

    policies: Mapping[str, Policy] = field(repr=False)
    digest: str = ""

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
