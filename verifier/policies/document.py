"""Reads a policy file (TOML): every field is checked, and none is ignored."""

from __future__ import annotations

import tomllib
from collections.abc import Iterable, Mapping
from dataclasses import replace
from types import MappingProxyType
from typing import Any, Final

from shared.claims import OWN_ISSUER
from shared.configuration.toml_fields import name_nearest
from verifier.check.answers import DECISION_ID_HEADER, IDENTITY_HEADERS
from verifier.check.claims import ClaimNames, ClaimPath
from verifier.check.denials import Denied
from verifier.check.policy import (
    DEFAULT_POLICY,
    ClaimHeader,
    IssuerTerms,
    Policy,
    PolicyError,
    ResourceMetadata,
    TokenPolicy,
)
from verifier.check.rules.requirements import NO_REQUIREMENTS, Requirements
from verifier.check.rules.rule import Hosts, Rule
from verifier.check.rules.target_uri import canonical_host, canonical_segments
from verifier.policies.fields import LONGEST_AGE, Fields
from verifier.policies.resource_metadata import read_resource_metadata

_NAME_CHARS: Final = frozenset("abcdefghijklmnopqrstuvwxyz0123456789-")
_HEADER_CHARS: Final = frozenset(
    "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-"
)
_HEADER_PREFIX: Final = "x-auth-"
#: With the longest names, the head of an allow stays within `MAX_ALLOW_HEAD_BYTES`.
_MAX_HEADERS: Final = 8
_MAX_HEADER_NAME: Final = 32
#: Of one policy. Each rule is compared with those before it, to warn of hidden ones.
_MAX_RULES: Final = 2_000
#: The path of the claim that says which issuer a token is from.
_ISS: Final = ("iss",)
_REQUIREMENTS: Final = (
    "required_scopes",
    "any_scopes",
    "required_roles",
    "client_ids",
    "claims",
    "max_age",
    "max_auth_age",
)
_OPEN: Final = ("public", "optional")
_TOML_HINT: Final = (
    "texts need quotes, true and false have none, and each rule begins with "
    "[[policies.NAME.rules]]"
)
_PATH_HINT: Final = "it must begin with /, and have no .., // or ;"
_STAR_HINT: Final = (
    "* stands for one whole segment (/a/*/c), and a last ** for all that follow (/a/**)"
)
_OF_POLICIES: Final = (
    *_REQUIREMENTS,
    *_OPEN,
    "audience",
    "decision_ids",
    "headers",
    "issuers",
    "mode",
    "on_stale",
    "preflight",
    "resource_metadata",
    "rules",
)
_OF_RULES: Final = (*_REQUIREMENTS, *_OPEN, "path", "hosts", "methods")


def parse_policies(
    text: str, token: TokenPolicy, issuers: Iterable[IssuerTerms] = ()
) -> Mapping[str, Policy]:
    """Read a policy file (docs/policies.md).

    Without a policy `default`, one is added that asks for a valid token of our own and
    nothing more.

    Args:
        text: the file's text.
        token: the policy for tokens of our own issuer alone; its `audience` may differ
            by policy.
        issuers: the terms of every other issuer that a policy can name.

    Returns:
        Policies by name.

    Raises:
        PolicyError: for a field that is unknown, of the wrong type or without effect.
    """
    try:
        document = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise PolicyError(f"not TOML: {error}; {_TOML_HINT}") from None
    except RecursionError:
        raise PolicyError("nested too deeply") from None
    if "cases" in document:
        raise PolicyError("cases: this is a file of cases; use it with `policy test`")
    fields = Fields("", document, {"policies"})
    tables = document.get("policies", {})
    if not isinstance(tables, dict):
        raise PolicyError("policies: must be a table")
    policies = {DEFAULT_POLICY: Policy(DEFAULT_POLICY, token)}
    others = {terms.name: terms for terms in issuers}
    for name, table in fields.read_table("policies").items():
        if not name or not _NAME_CHARS.issuperset(name):
            raise PolicyError(
                f"policies.{name}: a policy's name has only a-z, 0-9 and -"
            )
        policies[name] = _read_policy(name, table, token, others)
    return MappingProxyType(_share_claims(policies))


def _share_claims(policies: Mapping[str, Policy]) -> dict[str, Policy]:
    """Let policies of the same issuers and audience keep the same claims.

    Facts are kept by token policy, and each has a cache with all the memory that the
    setting allows.
    """
    kept: dict[tuple[IssuerTerms, ...], frozenset[ClaimPath]] = {}
    for policy in policies.values():
        token = policy.token
        kept[token.issuers] = kept.get(token.issuers, frozenset()) | token.kept_claims
    return {
        name: replace(
            policy,
            token=_with_claims(policy.token, kept[policy.token.issuers]),
        )
        for name, policy in policies.items()
    }


def _with_claims(token: TokenPolicy, kept: frozenset[ClaimPath]) -> TokenPolicy:
    return token if token.kept_claims == kept else replace(token, kept_claims=kept)


def _read_policy(
    name: str, table: Any, token: TokenPolicy, others: Mapping[str, IssuerTerms]
) -> Policy:
    where = f"policies.{name}"
    fields = Fields(where, table, _OF_POLICIES)
    rules = tuple(
        _read_rule(f"{where}.rules[{number}]", rule)
        for number, rule in enumerate(fields.read_list("rules"), 1)
    )
    if len(rules) > _MAX_RULES:
        raise fields.fail("rules", f"must be at most {_MAX_RULES}")
    is_public, is_optional = _read_open(fields)
    if rules and (is_public or is_optional):
        word = "public" if is_public else "optional"
        raise fields.fail(word, "a policy with rules needs it in a rule")
    requirements = _read_requirements(fields)
    headers = _read_headers(fields)
    kept = [path for _, path in headers]
    for asked in (requirements, *(rule.requirements for rule in rules)):
        kept += [path for path, _ in asked.claims]
    own = replace(
        token,
        issuers=_read_issuers(fields, token.issuers[0], others, headers),
        kept_claims=frozenset(kept),
        headers=headers,
    )
    return Policy(
        name=name,
        # Facts about tokens are kept by it: those that are equal are one.
        token=token if own == token else own,
        requirements=requirements,
        rules=rules,
        allows_stale=fields.read_choice("on_stale", ("deny", "allow")) == "allow",
        allows_preflight=fields.read_choice("preflight", ("deny", "allow")) == "allow",
        is_public=is_public,
        is_optional=is_optional,
        is_shadow=fields.read_choice("mode", ("enforce", "shadow")) == "shadow",
        has_decision_ids=fields.read_flag("decision_ids"),
        resource_metadata=_read_metadata(fields, own, requirements, rules),
    )


def _read_issuers(
    fields: Fields,
    own: IssuerTerms,
    others: Mapping[str, IssuerTerms],
    headers: tuple[ClaimHeader, ...],
) -> tuple[IssuerTerms, ...]:
    """Return the terms of each issuer that the policy accepts.

    The `audience` of a policy is that of our own tokens; other issuers have theirs in
    the issuers file.
    """
    own = replace(own, audience=fields.read_text("audience", own.audience))
    known = {OWN_ISSUER: own, **others}
    names = fields.read_words("issuers") or {OWN_ISSUER}
    if "issuers" in fields and not fields.read_words("issuers"):
        raise fields.fail("issuers", "must not be empty; leave it out for our own")
    for name in sorted(names):
        if name not in known:
            raise fields.fail("issuers", _explain_unknown(name, known))
    if "audience" in fields and OWN_ISSUER not in names:
        rule = f'is that of our own tokens, and issuers does not have "{OWN_ISSUER}"'
        raise fields.fail("audience", rule)
    if len(names) > 1 and all(path != _ISS for _, path in headers):
        # A `sub` or a user name of one issuer is not that of another (OpenID Connect
        # Core 1.0, section 5.7).
        raise fields.fail(
            "headers",
            "a policy of several issuers must send which one it was; add "
            'headers = { X-Auth-Issuer = "iss" }',
        )
    issuers = tuple(known[name] for name in sorted(names, key=list(known).index))
    _check_sent_once(fields, headers, issuers)
    return issuers


def _explain_unknown(name: str, known: Mapping[str, IssuerTerms]) -> str:
    if len(known) == 1:
        return (
            f'there is no issuer "{name}", because no issuers file is named '
            "(VERIFIER_ISSUERS_FILE, or --issuers)"
        )
    hint = name_nearest(name, known)
    return f'there is no issuer "{name}" in the issuers file{hint}'


def _read_metadata(
    fields: Fields,
    token: TokenPolicy,
    requirements: Requirements,
    rules: tuple[Rule, ...],
) -> ResourceMetadata | None:
    if "resource_metadata" not in fields:
        return None
    own = requirements.required_scopes | requirements.any_scopes
    asked = [rule.requirements for rule in rules]
    scopes = [own, *(own | one.required_scopes | one.any_scopes for one in asked)]
    table = fields.read_table("resource_metadata")
    where = f"{fields.where}.resource_metadata"
    return read_resource_metadata(where, table, token, scopes)


def _read_rule(where: str, table: Any) -> Rule:
    fields = Fields(where, table, _OF_RULES)
    methods = fields.read_words("methods", is_choice=True)
    if any(not (method.isalpha() and method.isupper()) for method in methods):
        raise fields.fail("methods", 'must be upper-case words, such as ["GET", "PUT"]')
    is_public, is_optional = _read_open(fields)
    return Rule(
        pattern=_read_pattern(fields),
        methods=methods,
        hosts=_read_hosts(fields) if "hosts" in fields else None,
        requirements=_read_requirements(fields),
        is_public=is_public,
        is_optional=is_optional,
    )


def _read_open(fields: Fields) -> tuple[bool, bool]:
    """Return whether no token is read, and whether none is needed."""
    is_public, is_optional = (fields.read_flag(name) for name in _OPEN)
    if is_public and is_optional:
        raise fields.fail("optional", "cannot be true beside public = true")
    if is_public or is_optional:
        for name in _REQUIREMENTS:
            if name in fields:
                word = "public" if is_public else "optional"
                raise fields.fail(
                    name, f"has no effect beside {word} = true: no token is needed"
                )
    return is_public, is_optional


def _read_requirements(fields: Fields) -> Requirements:
    asked = Requirements(
        required_scopes=fields.read_words("required_scopes"),
        any_scopes=fields.read_words("any_scopes", is_choice=True),
        required_roles=fields.read_words("required_roles", is_choice=True),
        client_ids=fields.read_words("client_ids", is_choice=True),
        claims=fields.read_claims("claims"),
        max_age=fields.read_seconds("max_age", largest=LONGEST_AGE),
        max_auth_age=fields.read_seconds("max_auth_age", largest=LONGEST_AGE),
    )
    # The one that is recognised without a comparison.
    return NO_REQUIREMENTS if asked == NO_REQUIREMENTS else asked


def _read_pattern(fields: Fields) -> tuple[str, ...]:
    if "path" not in fields and "hosts" not in fields:
        raise fields.fail("path", "is missing; a rule names a path, hosts or both")
    path = fields.read_text("path", "/**")
    if "?" in path:
        raise fields.fail("path", "rules see the path only; remove ? and the query")
    try:
        pattern = canonical_segments(path.encode("utf-8"))
    except Denied:
        problem = f"{path!r} is not a canonical path: {_PATH_HINT}"
        raise fields.fail("path", problem) from None
    if "**" in pattern[:-1]:
        raise fields.fail("path", f"{path!r}: ** may only stand last; {_STAR_HINT}")
    # `/admin*` would match a star only, and `%2A` would be read as one: either way the
    # rule would mean something else than it seems to.
    if "%2a" in path.lower() or any(
        "*" in segment and segment not in ("*", "**") for segment in pattern
    ):
        raise fields.fail("path", f"{path!r}: {_STAR_HINT}")
    return pattern


def _read_hosts(fields: Fields) -> Hosts:
    exact: set[str] = set()
    suffixes: set[str] = set()
    for host in fields.read_words("hosts", is_choice=True):
        name = host.removeprefix("*.")
        try:
            canonical = canonical_host(name.encode("utf-8"))
        except Denied:
            canonical = ""
        is_address = name.startswith("[")
        if not canonical or (canonical != name.lower() and not is_address):
            rule = (
                f"{host!r}: must be a host name alone, without https://, port or path; "
                "`*.` may only stand first"
            )
            raise fields.fail("hosts", rule)
        if name == host:
            exact.add(canonical)
        else:
            suffixes.add(f".{canonical}")
    return Hosts(frozenset(exact), tuple(sorted(suffixes)))


def _read_headers(fields: Fields) -> tuple[ClaimHeader, ...]:
    table = fields.read_table("headers")
    if len(table) > _MAX_HEADERS:
        raise fields.fail("headers", f"must be at most {_MAX_HEADERS}")
    ours = (*IDENTITY_HEADERS, DECISION_ID_HEADER)
    taken = {_fold(header.decode()) for header in ours}
    headers = []
    for name, claim in table.items():
        where = f"headers.{name}"
        if (
            not _fold(name).startswith(_HEADER_PREFIX)
            or not _HEADER_CHARS.issuperset(name)
            or len(name) > _MAX_HEADER_NAME
        ):
            rule = (
                f"a name is X-Auth- and letters, digits and -, at most "
                f"{_MAX_HEADER_NAME} characters"
            )
            raise fields.fail(where, rule)
        if _fold(name) in taken:
            raise fields.fail(where, "is there already, or differs in spelling only")
        taken.add(_fold(name))
        headers.append(ClaimHeader(name, fields.read_path(where, claim)))
    return tuple(headers)


def _check_sent_once(
    fields: Fields, headers: tuple[ClaimHeader, ...], issuers: Iterable[IssuerTerms]
) -> None:
    """Check that each claim is in one header: the token bounds the head of an allow."""
    sent: set[ClaimPath] = {("sub",)}
    for terms in issuers:
        sent.update(terms.claims or ClaimNames())
    paths = [path for _, path in headers]
    for name, path in headers:
        if paths.count(path) > 1 or any(path[: len(one)] == one for one in sent):
            raise fields.fail(f"headers.{name}", "this claim is in another header")


def _fold(name: str) -> str:
    """Return the form in which two spellings of a header are the same (R4)."""
    return name.lower().replace("_", "-")
