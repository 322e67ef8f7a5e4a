"""The rules of a policy, and what of it HAProxy cannot check."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tests.support.haproxy_sites import TERMS
from verifier.native.haproxy.directory import HaproxyDirectory
from verifier.native.haproxy.token_rules import check_terms, policy_section
from verifier.native.terms import InexpressibleError


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("issuer", 'https://a"b'),
        ("audience", "a b"),
        ("required_scopes", ("ok", "a%b")),
        ("any_scopes", ("a,b",)),
        ("required_roles", ("a]",)),
        ("client_ids", ("é",)),
        ("claims", ((("acr",), ("mfa",)),)),
    ],
)
def test_policy_that_haproxy_cannot_check_is_refused_by_name(
    field: str, value: Any
) -> None:
    terms = TERMS._replace(policy="orders", **{field: value})
    with pytest.raises(InexpressibleError, match=rf"policy orders: .*{field}: "):
        check_terms(terms)


def test_policy_whose_name_no_section_has_is_refused() -> None:
    with pytest.raises(InexpressibleError, match="name: "):
        check_terms(TERMS._replace(policy="a b"))


def test_policy_that_haproxy_can_check_is_accepted() -> None:
    check_terms(
        TERMS._replace(
            required_scopes=("orders:read", "a'b"),
            required_roles=("clerk[1",),
            client_ids=("web",),
        )
    )


def test_rules_of_a_policy_refuse_what_it_does_not_allow(tmp_path: Path) -> None:
    """How HAProxy reads them is tested in tests/gateways/test_native_haproxy.py."""
    asking = TERMS._replace(
        policy="asking",
        required_scopes=("a", "b"),
        any_scopes=("c", "d'e"),
        required_roles=("f",),
        client_ids=("g",),
    )
    section = policy_section(asking, HaproxyDirectory(tmp_path / "d").maps)
    assert section.startswith("defaults gatehouse-asking\n")
    lines = [line for line in section.splitlines() if "insufficient_scope" in line]
    conditions = [line.partition(" unless ")[2] for line in lines]
    assert conditions == [
        "{ var(txn.gh_scope) -m reg '(?:^| )(?:a)(?: |$)' }",
        "{ var(txn.gh_scope) -m reg '(?:^| )(?:b)(?: |$)' }",
        "{ var(txn.gh_scope) -m reg '(?:^| )(?:c|d'\\''e)(?: |$)' }",
        "{ var(txn.gh_roles) -m reg '(?:^| )(?:f)(?: |$)' }",
        "{ var(txn.gh_client) -m reg '^(?:g)\\z' }",
    ]
