"""What a token must have besides: scopes, roles, clients, claims, ages."""

from __future__ import annotations

from typing import Any

import pytest

from tests.support.policy_questions import (
    NOW,
    reason,
)


@pytest.mark.parametrize(
    ("policy", "claims", "expected"),
    [
        ('any_scopes = ["a", "b"]', {"scope": "b c"}, ""),
        ('any_scopes = ["a", "b"]', {"scope": "c"}, "scope_insufficient"),
        ('any_scopes = ["a", "b"]', {"scope": ""}, "scope_insufficient"),
        ('any_scopes = ["a"]\nrequired_scopes = ["b", "c"]', {"scope": "a b c"}, ""),
        (
            'any_scopes = ["a"]\nrequired_scopes = ["b", "c"]',
            {"scope": "a b"},
            "scope_insufficient",
        ),
        ('client_ids = ["app", "web"]', {"client_id": "web"}, ""),
        ('client_ids = ["app"]', {"client_id": "apps"}, "client_not_allowed"),
        ('claims = { tenant = "acme" }', {"tenant": "acme"}, ""),
        ('claims = { tenant = "acme" }', {"tenant": "Acme"}, "claim_mismatch"),
        ('claims = { tenant = "acme" }', {"sub": "x"}, "claim_mismatch"),
        ('claims = { tenant = "acme" }', {"tenant": None}, "claim_mismatch"),
        ('claims = { tenant = "acme" }', {"tenant": {"a": "acme"}}, "claim_mismatch"),
        ('claims = { tenant = ["acme", "other"] }', {"tenant": "other"}, ""),
        ('claims = { groups = "ops" }', {"groups": ["dev", "ops"]}, ""),
        ('claims = { groups = "ops" }', {"groups": [["ops"]]}, "claim_mismatch"),
        ('claims = { groups = "ops" }', {"groups": []}, "claim_mismatch"),
        ("claims = { email_verified = true }", {"email_verified": True}, ""),
        (
            "claims = { email_verified = true }",
            {"email_verified": 1},
            "claim_mismatch",
        ),
        (
            "claims = { email_verified = true }",
            {"email_verified": "true"},
            "claim_mismatch",
        ),
        ("claims = { level = 1 }", {"level": 1}, ""),
        ("claims = { level = 1 }", {"level": True}, "claim_mismatch"),
        ("claims = { level = 1 }", {"level": 1.0}, "claim_mismatch"),
        (
            'claims.realm_access.roles = "ops"',
            {"realm_access": {"roles": ["ops"]}},
            "",
        ),
        (
            'claims.realm_access.roles = "ops"',
            {"realm_access": ["ops"]},
            "claim_mismatch",
        ),
        ('claims = { a = "1", b = "2" }', {"a": "1", "b": "2"}, ""),
        ('claims = { a = "1", b = "2" }', {"a": "1"}, "claim_mismatch"),
        ("max_age = 60", {"iat": NOW - 65, "exp": NOW + 9}, ""),
        ("max_age = 60", {"iat": NOW - 66, "exp": NOW + 9}, "token_too_old"),
        ("max_auth_age = 60", {"auth_time": NOW - 65}, ""),
        ("max_auth_age = 60", {"auth_time": NOW - 66}, "authentication_too_old"),
        ("max_auth_age = 60", {"auth_time": None}, "authentication_too_old"),
        ("max_auth_age = 60", {"auth_time": "now"}, "authentication_too_old"),
        ("max_auth_age = 60", {"auth_time": -1}, "authentication_too_old"),
        ("max_auth_age = 60", {"auth_time": NOW + 5}, ""),
        ("max_auth_age = 60", {"auth_time": NOW + 6}, "authentication_too_old"),
    ],
)
def test_token_must_have_what_the_policy_names(
    policy: str, claims: dict[str, Any], expected: str
) -> None:
    assert reason(policy, **claims) == expected
    in_a_rule = "[[policies.a.rules]]\npath = '/**'\n"
    assert reason(in_a_rule + policy, **claims) == expected
