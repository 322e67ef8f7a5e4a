"""Policies: the conditions on tokens, and the requirements of routes.

A policy without issuer or audience cannot be built, so no missing setting switches a
check off (R18). Rules match the path only, in one canonical form, from its beginning
and segment by segment (R7, R8).
"""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from types import MappingProxyType
from typing import Any, Final

from shared.claims import (
    ACCEPTED_TYPS,
    DEFAULT_LEEWAY,
    LONGEST_ACCESS_TTL,
    MAX_LEEWAY,
    REQUIRED_CLAIMS,
    is_identifier,
)
from verifier.check.claims import Claims
from verifier.check.denials import Denied, DenyReason
from verifier.check.request_path import canonical_segments

DEFAULT_POLICY: Final = "default"
_NAME_CHARS: Final = frozenset("abcdefghijklmnopqrstuvwxyz0123456789-")
_ON_STALE: Final = ("deny", "allow")


class PolicyError(ValueError):
    """A policy file cannot be used; the message names policy, field and rule."""


@dataclass(frozen=True, slots=True)
class TokenPolicy:
    """What makes a token acceptable: issuer, audience, clock difference, lifetime.

    Attributes:
        issuer: the exact `iss`.
        audience: one of the token's `aud`.
        leeway: seconds clocks may differ, 0..60.
        accepted_typs: accepted `typ` header values, lower case.
        required_claims: claims that must be present.
        max_lifetime: the longest `exp - iat`, seconds. Revocations are kept that long.
    """

    issuer: str
    audience: str
    leeway: int = DEFAULT_LEEWAY
    accepted_typs: frozenset[str] = ACCEPTED_TYPS
    required_claims: frozenset[str] = REQUIRED_CLAIMS
    max_lifetime: int = LONGEST_ACCESS_TTL

    def __post_init__(self) -> None:
        for name in ("issuer", "audience"):
            if not is_identifier(getattr(self, name)):
                raise PolicyError(f"{name}: must be text of 1..256 characters")
        if not 0 <= self.leeway <= MAX_LEEWAY:
            raise PolicyError(f"leeway: must be 0..{MAX_LEEWAY} seconds")
        if not self.accepted_typs:
            raise PolicyError("accepted_typs: must not be empty")


@dataclass(frozen=True, slots=True)
class Rule:
    """One rule of a policy: the requests it matches, and their further requirements.

    Attributes:
        pattern: segments; `*` matches one segment, a last `**` any number.
        methods: upper-case methods; empty for any.
        required_scopes: all of these are needed.
        required_roles: one of these is needed; empty for none.
    """

    pattern: tuple[str, ...]
    methods: frozenset[str] = frozenset()
    required_scopes: frozenset[str] = frozenset()
    required_roles: frozenset[str] = frozenset()

    def matches(self, method: str, segments: tuple[str, ...]) -> bool:
        """Return whether the rule matches this method and canonical path."""
        if self.methods and method not in self.methods:
            return False
        pattern = self.pattern
        if pattern[-1:] == ("**",):
            pattern = pattern[:-1]
            segments = segments[: len(pattern)]
        if len(pattern) != len(segments):
            return False
        pairs = zip(pattern, segments, strict=True)
        return all(wanted in ("*", given) for wanted, given in pairs)


@dataclass(frozen=True, slots=True)
class Policy:
    """The requirements of a route: token policy, scopes, roles, and rules about paths.

    Attributes:
        name: its name in the check path, `/p/<name>`.
        token: what makes a token acceptable.
        required_scopes: all of these are needed.
        required_roles: one of these is needed; empty for none.
        rules: the first match decides. When there are rules and none matches, the
            request is refused.
        allows_stale: a stale revocation list is used instead of answering 503.
    """

    name: str
    token: TokenPolicy
    required_scopes: frozenset[str] = frozenset()
    required_roles: frozenset[str] = frozenset()
    rules: tuple[Rule, ...] = ()
    allows_stale: bool = False
    _asks_more: bool = field(init=False, repr=False)

    def __post_init__(self) -> None:
        asks_more = bool(self.required_scopes or self.required_roles or self.rules)
        object.__setattr__(self, "_asks_more", asks_more)

    def permit(self, claims: Claims, method: bytes | None, uri: bytes | None) -> None:
        """Check that the policy permits a request with these claims.

        Args:
            claims: the token's claims.
            method: the client's method; None when the gateway sent none.
            uri: the client's path and query; None when the gateway sent none.

        Raises:
            Denied: `scope_insufficient`, `role_missing`, `rule_missing`,
                `forwarded_missing`, `forwarded_malformed`, `path_ambiguous`.
        """
        if not self._asks_more:
            return
        _check_grants(claims, self.required_scopes, self.required_roles)
        if self.rules:
            rule = self._find_rule(method, uri)
            _check_grants(claims, rule.required_scopes, rule.required_roles)

    def _find_rule(self, method: bytes | None, uri: bytes | None) -> Rule:
        if not method or not uri:
            raise Denied(DenyReason.FORWARDED_MISSING)
        if not method.isalpha() or not method.isupper() or len(method) > 32:
            raise Denied(DenyReason.FORWARDED_MALFORMED)
        segments = canonical_segments(uri)
        for rule in self.rules:
            if rule.matches(method.decode("ascii"), segments):
                return rule
        raise Denied(DenyReason.RULE_MISSING)


def _check_grants(
    claims: Claims, scopes: frozenset[str], roles: frozenset[str]
) -> None:
    if scopes and not scopes.issubset(claims.scopes):
        raise Denied(DenyReason.SCOPE_INSUFFICIENT)
    if roles and roles.isdisjoint(claims.roles):
        raise Denied(DenyReason.ROLE_MISSING)


def parse_policies(text: str, token: TokenPolicy) -> Mapping[str, Policy]:
    """Read a policy file (TOML).

    Without a policy `default`, one is added that asks for a valid token and nothing
    more.

    Args:
        text: the file's text: tables `[policies.NAME]` with `audience`,
            `required_scopes`, `required_roles`, `on_stale` and
            `[[policies.NAME.rules]]` with `path`, `methods`, `required_scopes`,
            `required_roles`.
        token: the verifier's own token policy; `audience` may differ by policy.

    Returns:
        Policies by name.

    Raises:
        PolicyError: for a field that is unknown, of the wrong type or without effect.
    """
    try:
        document = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise PolicyError(f"not TOML: {error}") from None
    except RecursionError:
        raise PolicyError("nested too deeply") from None
    _refuse_unknown("policy file", document, {"policies"})
    tables = document.get("policies", {})
    if not isinstance(tables, dict):
        raise PolicyError("policies: must be a table")
    policies = {DEFAULT_POLICY: Policy(DEFAULT_POLICY, token)}
    for name, table in tables.items():
        if not name or not _NAME_CHARS.issuperset(name):
            raise PolicyError(f"policies.{name}: a name is of a-z, 0-9 and -")
        policies[name] = _read_policy(name, table, token)
    return MappingProxyType(policies)


def _read_policy(name: str, table: Any, token: TokenPolicy) -> Policy:
    where = f"policies.{name}"
    if not isinstance(table, dict):
        raise PolicyError(f"{where}: must be a table")
    _refuse_unknown(
        where,
        table,
        {"audience", "required_scopes", "required_roles", "on_stale", "rules"},
    )
    audience = table.get("audience", token.audience)
    if not isinstance(audience, str):
        raise PolicyError(f"{where}.audience: must be text")
    # The same audience gets the same object: facts about tokens are kept by it.
    if audience != token.audience:
        token = replace(token, audience=audience)
    on_stale = table.get("on_stale", "deny")
    if on_stale not in _ON_STALE:
        raise PolicyError(f'{where}.on_stale: must be "deny" or "allow"')
    rules = table.get("rules", [])
    if not isinstance(rules, list):
        raise PolicyError(f"{where}.rules: must be a list of tables")
    return Policy(
        name=name,
        token=token,
        required_scopes=_read_words(where, table, "required_scopes"),
        required_roles=_read_words(where, table, "required_roles"),
        rules=tuple(_read_rule(f"{where}.rules", rule) for rule in rules),
        allows_stale=on_stale == "allow",
    )


def _read_rule(where: str, table: Any) -> Rule:
    if not isinstance(table, dict):
        raise PolicyError(f"{where}: must be a list of tables")
    _refuse_unknown(
        where, table, {"path", "methods", "required_scopes", "required_roles"}
    )
    path = table.get("path")
    if not isinstance(path, str):
        raise PolicyError(f"{where}.path: must be text")
    try:
        pattern = canonical_segments(path.encode("utf-8"))
    except Denied:
        raise PolicyError(f"{where}.path: {path!r} is not a canonical path") from None
    if "?" in path:
        raise PolicyError(f"{where}.path: rules see the path only, not a query")
    if "**" in pattern[:-1]:
        raise PolicyError(f"{where}.path: ** may only stand last")
    methods = _read_words(where, table, "methods")
    if any(not (method.isalpha() and method.isupper()) for method in methods):
        raise PolicyError(f"{where}.methods: must be upper-case words")
    return Rule(
        pattern=pattern,
        methods=methods,
        required_scopes=_read_words(where, table, "required_scopes"),
        required_roles=_read_words(where, table, "required_roles"),
    )


def _read_words(where: str, table: dict[str, Any], name: str) -> frozenset[str]:
    words = table.get(name, [])
    if not isinstance(words, list) or not all(
        isinstance(word, str) and word and word.isprintable() and " " not in word
        for word in words
    ):
        raise PolicyError(f"{where}.{name}: must be a list of words")
    return frozenset(words)


def _refuse_unknown(where: str, table: dict[str, Any], known: set[str]) -> None:
    """Refuse unknown fields: a misspelt `required_scopes` would leave a route
    unchecked.
    """
    unknown = sorted(table.keys() - known)
    if unknown:
        raise PolicyError(f"{where}.{unknown[0]}: there is no such field")


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
