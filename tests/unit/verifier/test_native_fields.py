"""A new field of a policy is not forgotten where gateways check tokens."""

from __future__ import annotations

from dataclasses import fields

from verifier.check.policy import IssuerTerms, Policy, TokenPolicy
from verifier.check.rules.requirements import Requirements


def names_of(kind: type) -> set[str]:
    """Return the fields that are given, without those derived from them."""
    found = fields(kind)  # type: ignore[arg-type]
    return {field.name for field in found if field.init}


def test_every_field_is_checked_by_a_gateway_or_refused() -> None:
    """Add a field to `verifier/native/terms.py` first: to what a gateway checks, or to
    what it cannot check. One that it ignores would let requests pass.
    """
    assert names_of(Policy) == {
        *("name", "token", "requirements"),
        *("rules", "allows_stale", "allows_preflight", "is_public", "is_optional"),
        *("is_shadow", "has_decision_ids", "resource_metadata"),
    }
    assert names_of(Requirements) == {
        *("required_scopes", "any_scopes", "required_roles", "client_ids", "claims"),
        *("max_age", "max_auth_age"),
    }
    assert names_of(TokenPolicy) == {"issuers", "leeway", "kept_claims", "headers"}
    assert names_of(IssuerTerms) == {
        *("issuer", "audience", "name", "algorithms", "accepted_typs"),
        *("required_claims", "max_lifetime", "claims"),
    }
