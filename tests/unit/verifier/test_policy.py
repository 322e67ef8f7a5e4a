"""A policy without its checks cannot be built; rules are anchored and segment-wise."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from shared.claims import ACCEPTED_TYPS, REQUIRED_CLAIMS
from tests.support.tokens import AUDIENCE, ISSUER, good_claims
from verifier.check.claims import Claims, claims_of
from verifier.check.denials import Denied, DenyReason
from verifier.check.policy import (
    DEFAULT_POLICY,
    IssuerTerms,
    Policy,
    PolicyBook,
    PolicyError,
    TokenPolicy,
)
from verifier.check.rules.requirements import Requirements
from verifier.check.rules.rule import Rule, RuleTree
from verifier.policies.document import parse_policies

TOKEN = TokenPolicy.own(ISSUER, AUDIENCE)


def claims(**changes: Any) -> Claims:
    return claims_of(good_claims(0, **changes), REQUIRED_CLAIMS)


def policy(text: str) -> Policy:
    """Return the default policy of a file with these lines."""
    return parse_policies(f"[policies.default]\n{text}", TOKEN)[DEFAULT_POLICY]


def reason_of(
    asked: Policy,
    method: bytes | None = b"GET",
    uri: bytes | None = b"/",
    **changes: Any,
) -> str:
    """Return why the policy refuses; empty when it permits."""
    try:
        asked.permit(claims(**changes), asked.find_rule(method, None, uri), 0)
    except Denied as denied:
        return denied.reason.value
    return ""


# --- the token policy ----------------------------------------------------------------


@pytest.mark.parametrize("value", ["", "a" * 257, "a\nb", "a\x00"])
@pytest.mark.parametrize("field", ["issuer", "audience"])
def test_a_policy_without_issuer_or_audience_cannot_be_built(
    field: str, value: str
) -> None:
    """R18: no check is off for want of configuration (golang-jwt, Envoy)."""
    with pytest.raises(PolicyError, match=f"^{field}: "):
        TokenPolicy.own(**{"issuer": ISSUER, "audience": AUDIENCE, field: value})


def test_issuer_and_audience_have_no_default() -> None:
    with pytest.raises(TypeError):
        TokenPolicy.own()  # type: ignore[call-arg]  # what the test is about


def test_every_check_is_on_by_default() -> None:
    assert TOKEN.leeway == 5
    (terms,) = TOKEN.issuers
    assert terms.algorithms == {"RS256"}
    assert terms.accepted_typs == ACCEPTED_TYPS
    assert terms.required_claims == REQUIRED_CLAIMS


@pytest.mark.parametrize("leeway", [0, 60])
def test_leeway_is_0_to_60_seconds(leeway: int) -> None:
    assert TokenPolicy.own(ISSUER, AUDIENCE, leeway).leeway == leeway


@pytest.mark.parametrize("leeway", [-1, 61, 86_400])
def test_any_other_leeway_is_refused(leeway: int) -> None:
    with pytest.raises(PolicyError, match=r"^leeway: "):
        TokenPolicy.own(ISSUER, AUDIENCE, leeway)


@pytest.mark.parametrize("field", ["accepted_typs", "algorithms"])
def test_terms_that_accept_no_type_or_no_algorithm_are_refused(field: str) -> None:
    with pytest.raises(PolicyError, match=f"^{field}: "):
        IssuerTerms(ISSUER, AUDIENCE, **{field: frozenset()})


@pytest.mark.parametrize("claim", ["sub", "exp", "iat"])
def test_no_terms_go_without_a_subject_and_an_end(claim: str) -> None:
    """R18."""
    asked = frozenset({"sub", "exp", "iat"}) - {claim}
    with pytest.raises(PolicyError, match=f"^required_claims: must have {claim}"):
        IssuerTerms(ISSUER, AUDIENCE, required_claims=asked)


def test_a_policy_accepts_an_issuer_once_and_at_least_one() -> None:
    terms = IssuerTerms(ISSUER, AUDIENCE)
    with pytest.raises(PolicyError, match=r"^issuers: must not be empty"):
        TokenPolicy(())
    with pytest.raises(PolicyError, match=r"^issuers: one issuer is there twice"):
        TokenPolicy((terms, replace(terms, name="other")))


# --- scopes and roles ----------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("", ""),
        ('required_scopes = ["orders:read"]', ""),
        ('required_scopes = ["orders:read", "orders:write"]', ""),
        ('required_scopes = ["orders:read", "admin"]', "scope_insufficient"),
        ('required_scopes = ["orders"]', "scope_insufficient"),
        ('required_scopes = ["ORDERS:READ"]', "scope_insufficient"),
        ('required_roles = ["clerk"]', ""),
        ('required_roles = ["admin", "clerk"]', ""),
        ('required_roles = ["admin"]', "role_missing"),
        ('required_roles = ["cler"]', "role_missing"),
        ('required_scopes = ["admin"]\nrequired_roles = ["x"]', "scope_insufficient"),
    ],
)
def test_every_scope_and_one_role_is_needed(text: str, reason: str) -> None:
    assert reason_of(policy(text)) == reason


def test_a_token_without_scopes_and_roles_has_none() -> None:
    bare = {"scope": None, "roles": None}
    assert reason_of(policy('required_scopes = ["a"]'), **bare) == "scope_insufficient"
    assert reason_of(policy('required_roles = ["a"]'), **bare) == "role_missing"
    assert reason_of(policy(""), **bare) == ""


# --- rules ---------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("path", "uri", "matches"),
    [
        ("/", b"/", True),
        ("/", b"/a", False),
        ("/a", b"/a", True),
        ("/a", b"/a/", True),
        ("/a/", b"/a", True),
        ("/a", b"/A", False),
        ("/a", b"/ab", False),
        ("/a", b"/a/b", False),
        ("/a", b"/x/a", False),
        ("/a", b"/%61", True),
        ("/%61", b"/a", True),
        ("/a%20b", b"/a%20b", True),
        ("/a", b"/a?b", True),
        ("/a", b"/b?/a", False),
        ("/*", b"/a", True),
        ("/*", b"/", False),
        ("/*", b"/a/b", False),
        ("/*/b", b"/a/b", True),
        ("/*/b", b"/a/c", False),
        ("/a/*/c", b"/a/b/c", True),
        ("/a/**", b"/a", True),
        ("/a/**", b"/a/b", True),
        ("/a/**", b"/a/b/c/d", True),
        ("/a/**", b"/ab", False),
        ("/a/**", b"/", False),
        ("/a/**", b"/b/a/x", False),
        ("/*/x/**", b"/a/x/y", True),
        ("/*/x/**", b"/a", False),
        ("/**", b"/", True),
        ("/**", b"/a/b", True),
        ("/a", b"/*", False),
    ],
)
def test_a_rule_is_anchored_and_goes_by_segments(
    path: str, uri: bytes, matches: bool
) -> None:
    """R8."""
    asked = policy(f'rules = [{{path = "{path}"}}]')
    assert reason_of(asked, uri=uri) == ("" if matches else "rule_missing")


RULES = """
required_scopes = ["orders:read"]
[[policies.default.rules]]
path = "/public/**"
[[policies.default.rules]]
path = "/orders/**"
methods = ["GET", "HEAD"]
[[policies.default.rules]]
path = "/orders/**"
required_scopes = ["orders:write"]
[[policies.default.rules]]
path = "/admin/**"
required_roles = ["admin"]
"""


@pytest.mark.parametrize(
    ("method", "uri", "scope", "reason"),
    [
        (b"GET", b"/public/a", "orders:read", ""),
        (b"DELETE", b"/public/a", "orders:read", ""),
        (b"GET", b"/orders/1", "orders:read", ""),
        (b"HEAD", b"/orders/1", "orders:read", ""),
        (b"POST", b"/orders/1", "orders:read", "scope_insufficient"),
        (b"POST", b"/orders/1", "orders:read orders:write", ""),
        (b"GET", b"/admin", "orders:read", "role_missing"),
        (b"GET", b"/elsewhere", "orders:read", "rule_missing"),
        (b"GET", b"/public/a", "orders:write", "scope_insufficient"),
        (b"GET", b"/public/../admin", "orders:read", "path_ambiguous"),
    ],
)
def test_the_first_rule_that_matches_decides(
    method: bytes, uri: bytes, scope: str, reason: str
) -> None:
    """And the policy's own scopes are needed besides; no match is a refusal."""
    assert reason_of(policy(RULES), method, uri, scope=scope) == reason


@pytest.mark.parametrize(
    ("method", "uri", "reason"),
    [
        (None, b"/public", "forwarded_missing"),
        (b"", b"/public", "forwarded_missing"),
        (b"GET", None, "forwarded_missing"),
        (b"GET", b"", "forwarded_missing"),
        (b"get", b"/public", "forwarded_malformed"),
        (b"GET ", b"/public", "forwarded_malformed"),
        (b"GET,POST", b"/public", "forwarded_malformed"),
        (b"GET\r\n", b"/public", "forwarded_malformed"),
        (b"G\xc9T", b"/public", "forwarded_malformed"),
        (b"1", b"/public", "forwarded_malformed"),
        (b"A" * 33, b"/public", "forwarded_malformed"),
        (b"A" * 32, b"/public", ""),
    ],
)
def test_cve_2024_47070_rules_need_a_method_and_a_path_that_can_be_read(
    method: bytes | None, uri: bytes | None, reason: str
) -> None:
    """R5: an unparsable value is a refusal, never "absent"."""
    assert reason_of(policy(RULES), method, uri) == reason


def test_method_and_path_do_not_matter_without_rules() -> None:
    for method, uri in ((None, None), (b"get", b"/../"), (b"", b"\xff")):
        assert reason_of(policy(""), method, uri) == ""


def test_a_rule_without_methods_takes_any() -> None:
    rule = Rule(("a",))
    assert RuleTree([rule]).find("PURGE", "", ("a",)) is rule


# --- the file ------------------------------------------------------------------------


def test_one_policy_without_extra_conditions_exists_without_a_file() -> None:
    policies = parse_policies("", TOKEN)
    assert dict(policies) == {DEFAULT_POLICY: Policy(DEFAULT_POLICY, TOKEN)}


def test_a_policy_file_is_read() -> None:
    text = """
    [policies.orders-2]
    audience = "orders"
    required_scopes = ["a", "b"]
    required_roles = ["r"]
    on_stale = "allow"
    [[policies.orders-2.rules]]
    path = "/x"
    methods = ["GET"]
    required_scopes = ["c"]
    required_roles = ["q"]
    """
    policies = parse_policies(text, TokenPolicy.own(ISSUER, AUDIENCE, 7))
    assert set(policies) == {DEFAULT_POLICY, "orders-2"}
    assert policies["orders-2"] == Policy(
        name="orders-2",
        token=TokenPolicy.own(ISSUER, "orders", 7),
        requirements=Requirements(frozenset("ab"), required_roles=frozenset("r")),
        rules=(
            Rule(
                ("x",),
                frozenset({"GET"}),
                requirements=Requirements(
                    frozenset("c"), required_roles=frozenset("q")
                ),
            ),
        ),
        allows_stale=True,
    )


def test_policies_of_one_audience_share_their_token_policy() -> None:
    """Facts are kept per token policy."""
    text = '[policies.a]\naudience = "api"\n[policies.b]\naudience = "b"\n[policies.c]'
    policies = parse_policies(text, TOKEN)
    assert policies["a"].token is policies["c"].token is TOKEN
    assert policies["b"].token.issuers[0].audience == "b"


def test_another_audience_changes_nothing_else_of_the_token_policy() -> None:
    terms = IssuerTerms(ISSUER, AUDIENCE, accepted_typs=frozenset({"at+jwt"}))
    token = TokenPolicy((terms,), 7)
    other = parse_policies('[policies.a]\naudience = "b"', token)["a"].token
    assert other == TokenPolicy((replace(terms, audience="b"),), 7)


def test_stale_lists_are_refused_by_default() -> None:
    assert not policy("").allows_stale
    assert not policy('on_stale = "deny"').allows_stale
    assert policy('on_stale = "allow"').allows_stale


@pytest.mark.parametrize(
    ("text", "named"),
    [
        pytest.param("[policies", "not TOML", id="no TOML"),
        pytest.param("[policy.a]", "policy: there is no such field", id="misspelt"),
        pytest.param("policies = 1", "policies: must be a table", id="no table"),
        pytest.param("policies = {a = 1}", "policies.a: must be a table", id="entry"),
        pytest.param(
            "[policies.A]", "policies.A: a policy's name has", id="upper case"
        ),
        pytest.param(
            "[policies.a_b]", "policies.a_b: a policy's name has", id="underscore"
        ),
        pytest.param(
            '[policies."a/b"]', "policies.a/b: a policy's name has", id="slash"
        ),
        pytest.param('[policies.""]', "policies.: a policy's name has", id="no name"),
        pytest.param(
            '[policies.a]\nrequired_scope = ["a"]',
            "policies.a.required_scope: there is no such field",
            id="misspelt scope",
        ),
        pytest.param(
            '[policies.a]\non_stale = "always"', "policies.a.on_stale", id="on_stale"
        ),
        pytest.param("[policies.a]\non_stale = true", "policies.a.on_stale", id="bool"),
        pytest.param("[policies.a]\naudience = 1", "policies.a.audience", id="aud"),
        pytest.param('[policies.a]\naudience = ""', "audience: ", id="no aud"),
        pytest.param(
            '[policies.a]\nrequired_scopes = "a b"',
            "policies.a.required_scopes: must be a list",
            id="scopes as text",
        ),
        pytest.param(
            '[policies.a]\nrequired_scopes = ["a b"]',
            "policies.a.required_scopes: must be a list of words",
            id="two scopes in one",
        ),
        pytest.param(
            '[policies.a]\nrequired_roles = [""]', "required_roles", id="empty role"
        ),
        pytest.param(
            "[policies.a]\nrequired_roles = [1]", "required_roles", id="role a number"
        ),
        pytest.param(
            '[policies.a]\nrequired_roles = ["a\\n"]', "required_roles", id="role LF"
        ),
        pytest.param("[policies.a]\nrules = {}", "policies.a.rules", id="rules"),
        pytest.param("[policies.a]\nrules = [1]", "policies.a.rules", id="rule"),
        pytest.param("[policies.a]\nrules = [{}]", "rules[1].path", id="no path"),
        pytest.param("[policies.a]\nrules = [{path = 1}]", "rules[1].path", id="path"),
        pytest.param(
            '[policies.a]\nrules = [{path = "/a", method = ["GET"]}]',
            "policies.a.rules[1].method: there is no such field",
            id="misspelt methods",
        ),
        pytest.param(
            '[policies.a]\nrules = [{path = "/a", methods = ["get"]}]',
            "rules[1].methods",
            id="methods in lower case",
        ),
        pytest.param(
            '[policies.a]\nrules = [{path = "/a", methods = "GET"}]',
            "rules[1].methods",
            id="methods as text",
        ),
        pytest.param(
            '[policies.a]\nrules = [{path = "/a", methods = ["GET,PUT"]}]',
            "rules[1].methods",
            id="methods joined",
        ),
        *(
            pytest.param(
                f'[policies.a]\nrules = [{{path = "{path}"}}]', "rules[1].path", id=path
            )
            for path in (
                "a",
                "",
                "/a/../b",
                "/a//b",
                "/**/a",
                "/a?b=c",
                "/ü",
                "/a;b",
                "/a b",
            )
        ),
    ],
)
def test_a_file_with_anything_odd_is_refused(text: str, named: str) -> None:
    """A misspelt field would be a route without its check."""
    with pytest.raises(PolicyError) as caught:
        parse_policies(text, TOKEN)
    assert named in str(caught.value)


def test_an_unknown_policy_is_no_policy() -> None:
    book = PolicyBook(parse_policies("[policies.a]", TOKEN))
    assert book.find("a").name == "a"
    for name in ("b", "", "A", "default/x"):
        with pytest.raises(Denied) as caught:
            book.find(name)
        assert caught.value.reason is DenyReason.POLICY_UNKNOWN
