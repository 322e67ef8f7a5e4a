"""A policy file that is wrong is refused with the field's name."""

from __future__ import annotations

import pytest

from tests.support.policy_questions import (
    TOKEN,
)
from verifier.check.policy import (
    PolicyError,
)
from verifier.policies.document import parse_policies


@pytest.mark.parametrize(
    ("text", "named"),
    [
        (
            'required_scope = ["a"]',
            "policies.a.required_scope: there is no such field; "
            "the nearest is required_scopes",
        ),
        (
            'public = true\nrequired_scopes = ["a"]',
            "policies.a.required_scopes: has no effect beside public = true",
        ),
        (
            '[[policies.a.rules]]\npath = "/"\noptional = true\nmax_age = 9',
            "policies.a.rules[1].max_age: has no effect beside optional = true",
        ),
        ("public = true\noptional = true", "policies.a.optional: cannot be true"),
        (
            'public = true\n[[policies.a.rules]]\npath = "/"',
            "policies.a.public: a policy with rules needs it in a rule",
        ),
        ("public = 1", "policies.a.public: must be true or false"),
        ('preflight = "yes"', 'policies.a.preflight: must be "deny" or "allow"'),
        ("max_age = 0", "policies.a.max_age: must be 1.."),
        ("max_age = true", "policies.a.max_age: must be 1.."),
        ("max_auth_age = 1.5", "policies.a.max_auth_age: must be 1.."),
        ("client_ids = []", "policies.a.client_ids: must not be empty"),
        ("claims = 1", "policies.a.claims: must be a table"),
        ("claims = { a = [] }", "policies.a.claims.a: must be text"),
        ("claims = { a = 1.5 }", "policies.a.claims.a: must be text"),
        ("claims = { a = {} }", "policies.a.claims.a: must lead to a claim"),
        ("claims = {}", "policies.a.claims: must not be empty"),
        ("required_roles = []", "policies.a.required_roles: must not be empty"),
        (
            '[[policies.a.rules]]\npath = "/"\nmethods = []',
            "policies.a.rules[1].methods: must not be empty",
        ),
        *(
            (f'[[policies.a.rules]]\npath = "{path}"', "* stands for one whole segment")
            for path in ("/admin*", "/a/***", "/*.css", "/%2A", "/%2a%2A", "/a/*/b*")
        ),
        (
            '[[policies.a.rules]]\npath = "/"\n' * 2_001,
            "policies.a.rules: must be at most 2000",
        ),
        ("headers = 1", "policies.a.headers: must be a table"),
        (
            '[[policies.a.rules]]\npath = "/"\n[[policies.a.rules]]\nhosts = ["a b"]',
            "policies.a.rules[2].hosts: must be a list of words",
        ),
        ('[[policies.a.rules]]\nhosts = ["a:1"]', "must be a host name alone"),
        ('[[policies.a.rules]]\nhosts = ["a.*.b"]', "must be a host name alone"),
        ('[[policies.a.rules]]\nhosts = ["*"]', "must be a host name alone"),
        ('[[policies.a.rules]]\nhosts = ["*.*.b"]', "must be a host name alone"),
        ('[[policies.a.rules]]\nmethods = ["GET"]', "rules[1].path: is missing"),
    ],
)
def test_file_that_is_wrong_is_refused_with_its_field(text: str, named: str) -> None:
    with pytest.raises(PolicyError) as caught:
        parse_policies(f"[policies.a]\n{text}", TOKEN)
    assert named in str(caught.value)


def test_claims_are_kept_for_the_policies_that_read_them_only() -> None:
    text = "[policies.a]\nclaims = { tenant = 'x' }\n[policies.b]"
    policies = parse_policies(text, TOKEN)
    assert policies["a"].token.kept_claims == {("tenant",)}
    # Of one audience: all keep the same claims, and so share one cache.
    assert policies["a"].token is not TOKEN
    assert policies["b"].token == policies["a"].token
    other = parse_policies(text + "\n[policies.c]\naudience = 'other'", TOKEN)["c"]
    assert other.token.kept_claims == frozenset()
