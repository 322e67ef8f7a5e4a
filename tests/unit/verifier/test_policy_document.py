"""The example in docs/policies.md is a policy file that works as described."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from shared.claims import REQUIRED_CLAIMS
from tests.support.gatehouse_verifier import TOKEN_POLICY
from tests.support.tokens import good_claims
from verifier.check.claims import claims_of
from verifier.check.denials import Denied
from verifier.check.policy import parse_policies

DOCUMENT = Path(__file__).resolve().parents[3] / "docs" / "policies.md"


@pytest.mark.parametrize(
    ("policy", "method", "uri", "scope", "roles", "passes"),
    [
        ("default", b"GET", b"/", "", [], True),
        ("orders", b"GET", b"/orders/7?x=/admin", "orders:read", [], True),
        ("orders", b"POST", b"/orders", "orders:read", [], False),
        ("orders", b"POST", b"/orders", "orders:read orders:write", [], True),
        ("orders", b"GET", b"/elsewhere", "orders:read", [], False),
        ("orders", b"GET", b"/orders/../admin", "orders:read", [], False),
        ("office", b"GET", b"/", "", ["clerk"], True),
        ("office", b"GET", b"/", "", ["guest"], False),
        ("status", b"GET", b"/", "", [], True),
    ],
)
def test_the_example_works_as_described(
    policy: str, method: bytes, uri: bytes, scope: str, roles: list[str], passes: bool
) -> None:
    (example,) = re.findall(r"```toml\n(.*?)```", DOCUMENT.read_text(), re.S)
    policies = parse_policies(example, TOKEN_POLICY)
    assert policies["office"].token.audience == "office"
    assert policies["status"].allows_stale
    claims = claims_of(good_claims(0, scope=scope, roles=roles), REQUIRED_CLAIMS)
    if passes:
        policies[policy].permit(claims, method, uri)
    else:
        with pytest.raises(Denied):
            policies[policy].permit(claims, method, uri)
