"""Which policies a gateway can check by itself; every other field is named."""

from __future__ import annotations

import logging
from dataclasses import replace
from typing import Any

import pytest

from tests.support.log_fields import fields_of
from tests.support.tokens import AUDIENCE, ISSUER
from verifier.check.policy import (
    ClaimHeader,
    IssuerTerms,
    Policy,
    PolicyBook,
    ResourceMetadata,
    TokenPolicy,
)
from verifier.check.rules.requirements import Requirements
from verifier.native.terms import (
    MIN_LEEWAY,
    InexpressibleError,
    NativePolicies,
    native_terms,
)
from verifier.policies.document import parse_policies

TOKEN = TokenPolicy.own(ISSUER, AUDIENCE)


def policy(text: str, token: TokenPolicy = TOKEN) -> Policy:
    return parse_policies(f"[policies.default]\n{text}", token)["default"]


def fault(asked: Policy) -> str:
    with pytest.raises(InexpressibleError) as caught:
        native_terms(asked)
    return str(caught.value)


def test_all_that_a_gateway_can_check_is_kept() -> None:
    asked = Requirements(
        required_scopes=frozenset({"b", "a"}),
        any_scopes=frozenset({"d", "c"}),
        required_roles=frozenset({"f", "e"}),
        client_ids=frozenset({"h", "g"}),
        claims=((("t",), ("x", 1, True)),),
    )
    terms = native_terms(Policy("p", TOKEN, requirements=asked))
    assert terms._asdict() == {
        "policy": "p",
        "issuer": ISSUER,
        "audience": AUDIENCE,
        "leeway": 5,
        "max_lifetime": 3_600,
        "required_scopes": ("a", "b"),
        "any_scopes": ("c", "d"),
        "required_roles": ("e", "f"),
        "client_ids": ("g", "h"),
        "claims": ((("t",), ("x", 1, True)),),
    }


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"allows_stale": True}, "on_stale"),
        ({"allows_preflight": True}, "allow_cors_preflight"),
        ({"is_public": True}, "public"),
        ({"is_optional": True}, "optional"),
        ({"is_shadow": True}, "mode"),
        ({"has_decision_ids": True}, "decision_ids"),
        ({"resource_metadata": ResourceMetadata("u", b"{}")}, "resource_metadata"),
        ({"requirements": Requirements(max_age=60)}, "max_age"),
        ({"requirements": Requirements(max_auth_age=60)}, "max_auth_age"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_field_that_no_gateway_can_check_is_named(
    change: dict[str, Any], named: str
) -> None:
    message = fault(replace(Policy("p", TOKEN), **change))
    assert message.startswith(f"policy p: cannot be native: {named}")


def test_rules_are_named() -> None:
    rule = '[[policies.default.rules]]\npath = "/a/**"\nrequired_scopes = ["x"]'
    assert "rules match a path" in fault(policy(rule))


def test_every_fault_of_a_policy_is_named() -> None:
    message = fault(replace(Policy("p", TOKEN), is_public=True, is_shadow=True))
    assert "public" in message
    assert "mode" in message


def terms_of(**changes: Any) -> IssuerTerms:
    return replace(IssuerTerms(ISSUER, AUDIENCE), **changes)


@pytest.mark.parametrize(
    ("issuers", "named"),
    [
        ((terms_of(name="other"),), "only tokens of our own issuer"),
        (
            (terms_of(), terms_of(issuer="https://b.test", name="b")),
            "only tokens of our own issuer",
        ),
        ((terms_of(algorithms=frozenset({"ES256"})),), "other terms than usual"),
        ((terms_of(accepted_typs=frozenset({"jwt"})),), "other terms than usual"),
        (
            (terms_of(required_claims=frozenset({"exp", "iat", "sub"})),),
            "other terms than usual",
        ),
    ],
)
def test_other_issuers_and_terms_are_named(
    issuers: tuple[IssuerTerms, ...], named: str
) -> None:
    assert named in fault(Policy("p", TokenPolicy(issuers)))


@pytest.mark.parametrize("leeway", range(MIN_LEEWAY))
def test_leeway_that_gateways_read_as_their_own_is_named(leeway: int) -> None:
    message = fault(Policy("p", TokenPolicy.own(ISSUER, AUDIENCE, leeway)))
    assert "VERIFIER_LEEWAY: gateways need at least 2 s" in message


def test_headers_of_claims_are_named() -> None:
    token = replace(TOKEN, headers=(ClaimHeader("X-Auth-Tenant", ("tenant",)),))
    assert "headers: " in fault(Policy("p", token))


# --- while the file changes -----------------------------------------------------------


class Book:
    """A policy file that changes."""

    def __init__(self) -> None:
        self.write(scope="a")

    def write(self, scope: str, **changes: Any) -> None:
        asked = Requirements(required_scopes=frozenset({scope}))
        first = replace(Policy("default", TOKEN, requirements=asked), **changes)
        second = Policy("second", TOKEN, requirements=asked)
        self.book = PolicyBook({"default": first, "second": second})

    def read(self) -> PolicyBook:
        return self.book


def accept(_: object) -> None:
    """As a gateway that can check them."""


def test_new_terms_are_taken() -> None:
    file = Book()
    policies = NativePolicies(["default"], file.read, accept)
    first = policies.terms()
    assert policies.terms() is first
    file.write(scope="b")
    assert policies.terms()["default"].required_scopes == ("b",)
    assert first["default"].required_scopes == ("a",)


def test_last_terms_stay_after_a_change_that_cannot_be_native(
    caplog: pytest.LogCaptureFixture,
) -> None:
    """R65: the other policies go on; a log line names the field, once."""
    file = Book()
    policies = NativePolicies(["default", "second"], file.read, accept)
    file.write(scope="b", is_public=True)
    with caplog.at_level(logging.ERROR):
        for _ in range(3):
            terms = policies.terms()
    assert terms["default"].required_scopes == ("a",)
    assert terms["second"].required_scopes == ("b",)
    (record,) = [r for r in caplog.records if r.msg == "native.policy_not_taken"]
    assert "public" in str(fields_of(record)["error"])
    assert "public" in policies.errors["default"]
    assert policies.errors["second"] == ""
    file.write(scope="c")
    assert policies.terms()["default"].required_scopes == ("c",)
    assert not any(policies.errors.values())


def test_policy_that_is_gone_keeps_its_terms() -> None:
    file = Book()
    policies = NativePolicies(["second"], file.read, accept)
    file.book = PolicyBook({})
    assert policies.terms()["second"].required_scopes == ("a",)


def test_unknown_policy_is_named() -> None:
    with pytest.raises(InexpressibleError, match="policy typo: there is none"):
        NativePolicies(["typo"], Book().read, accept)
