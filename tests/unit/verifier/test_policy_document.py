"""The example in docs/policies.md is a policy file that works as described."""

from __future__ import annotations

from typing import Any

import orjson
import pytest

from tests.support.policy_page import blocks, every_field, first_policies
from tests.support.tokens import AUDIENCE, ISSUER, good_claims, make_token, signing_key
from verifier.check.decision import Allowed, CheckPaths, Times, decide
from verifier.check.forward_auth import PlainCheckRequest
from verifier.check.policy import PolicyBook, TokenPolicy
from verifier.check.trust import Trust, key_set
from verifier.policies.document import parse_policies

NOW = 1_795_000_000
READER, WRITER = {"scope": "orders:read"}, {"scope": "orders:read orders:write"}
ACME = {"scope": "shop:read", "tenant": "acme", "plan": "team"}
ADMIN = {"roles": ["admin"], "client_id": "backoffice", "auth_time": NOW - 900}
ADMIN_HOST, SHOP = "b.ops.example.com", "shop.example.com"


@pytest.mark.parametrize(
    ("policy", "request_line", "claims", "expected"),
    [
        ("default", "GET a /", {}, "allow"),
        ("default", "GET a /", None, "credential_missing"),
        ("orders", "GET a /orders/7?x=/admin", READER, "allow"),
        ("orders", "POST a /orders", READER, "scope_insufficient"),
        ("orders", "POST a /orders", WRITER, "allow"),
        ("orders", "GET a /elsewhere", READER, "rule_missing"),
        ("orders", "GET a /orders/../admin", READER, "path_ambiguous"),
        ("office", "GET a /", {"aud": "office", "roles": ["clerk"]}, "allow"),
        ("office", "GET a /", {"aud": "office", "roles": ["guest"]}, "role_missing"),
        ("office", "GET a /", {"roles": ["clerk"]}, "audience_mismatch"),
        ("status", "GET a /", {}, "allow"),
        ("shop", f"GET {SHOP} /assets/a.css", None, "allow-anonymous"),
        ("shop", f"GET {SHOP} /assets/a.css", {}, "allow-anonymous"),
        ("shop", f"GET {SHOP} /", None, "allow-anonymous"),
        ("shop", f"GET {SHOP} /", {}, "allow"),
        ("shop", f"GET {SHOP} /", {"exp": NOW - 60}, "expired"),
        ("shop", f"GET {ADMIN_HOST} /users", ADMIN, "allow"),
        ("shop", "GET ADMIN.example.com:443 /users", ADMIN, "allow"),
        ("shop", f"GET {ADMIN_HOST} /", ADMIN | {"roles": []}, "allow"),
        ("shop", f"GET {ADMIN_HOST} /u", ADMIN | {"roles": []}, "role_missing"),
        (
            "shop",
            f"GET {ADMIN_HOST} /u",
            ADMIN | {"client_id": "app"},
            "client_not_allowed",
        ),
        (
            "shop",
            f"GET {ADMIN_HOST} /u",
            ADMIN | {"auth_time": NOW - 906},
            "authentication_too_old",
        ),
        ("shop", f"GET {SHOP} /cart", ACME, "allow"),
        ("shop", f"GET {SHOP} /cart", ACME | {"plan": "free"}, "claim_mismatch"),
        ("shop", f"GET {SHOP} /cart", ACME | {"scope": "x"}, "scope_insufficient"),
        ("shop", f"GET {SHOP} /cart", ACME | {"iat": NOW - 306}, "token_too_old"),
        ("shop", f"OPTIONS {SHOP} /cart", None, "allow-anonymous"),
        ("tools", "GET a /", {"scope": "tools:use"}, "allow"),
        ("tools", "GET a /", {"scope": "x"}, "scope_insufficient"),
        ("trial", "GET a /", {"roles": ["clerk"]}, "allow"),
        ("trial", "GET a /", {"roles": []}, "allow-shadow"),
        ("trial", "GET a /", None, "credential_missing"),
        ("trial", "GET a /", {"exp": NOW - 60}, "expired"),
    ],
)
def test_example_does_what_it_says(
    policy: str, request_line: str, claims: dict[str, Any] | None, expected: str
) -> None:
    method, host, uri = request_line.encode().split(b" ")
    sent = [
        (b"x-original-method", method),
        (b"x-original-host", host),
        (b"x-original-uri", uri),
        (b"origin", b"https://a.test"),
        (b"access-control-request-method", b"PUT"),
    ]
    if claims is not None:
        token = make_token(good_claims(NOW, **claims))
        sent.append((b"authorization", b"Bearer " + token))
    target = b"/verify/nginx/p/" + policy.encode()
    check = PlainCheckRequest(b"GET", target, sent, peer_is_trusted=True)
    trust = Trust(ISSUER)
    trust.trust_keys(ISSUER, key_set([signing_key().jwk]), 2)
    trust.renew(2)
    outcome = decide(check, trust.snapshot, example_paths(), Times(NOW, 1))
    if isinstance(outcome, Allowed):
        found = dict(outcome.answer.headers)[b"X-Auth-Decision"].decode()
    else:
        found = outcome.reason.value
    assert found == expected


def example_paths() -> CheckPaths:
    policies = parse_policies(every_field(), TokenPolicy.own(ISSUER, AUDIENCE))
    assert policies["status"].allows_stale
    assert policies["tools"].has_decision_ids
    metadata = policies["tools"].resource_metadata
    assert metadata is not None
    assert orjson.loads(metadata.document) == {
        "resource": "https://tools.example.com/",
        "authorization_servers": [ISSUER],
        "bearer_methods_supported": ["header"],
        "scopes_supported": ["tools:use"],
        "resource_name": "Tools",
    }
    return CheckPaths(PolicyBook(policies))


def test_metadata_of_the_page_fits_the_first_policy() -> None:
    (added,) = blocks("OAuth and MCP clients", "toml")
    text = first_policies() + added
    policy = parse_policies(text, TokenPolicy.own(ISSUER, AUDIENCE))["default"]
    assert policy.resource_metadata is not None
    assert orjson.loads(policy.resource_metadata.document)["resource"] == (
        "https://tools.example.com/"
    )
