"""Other issuers of the issuers file, as the check knows them."""

from __future__ import annotations

from shared.configuration.issuers_file import OtherIssuer
from verifier.check.claims import ClaimNames
from verifier.check.policy import IssuerTerms


def terms_of(other: OtherIssuer) -> IssuerTerms:
    """Return what the tokens of this issuer must be."""
    return IssuerTerms(
        issuer=other.issuer,
        audience=other.audience,
        name=other.name,
        algorithms=other.algorithms,
        accepted_typs=other.types,
        required_claims=other.required_claims,
        max_lifetime=other.max_lifetime,
        claims=ClaimNames(**other.claims),
    )
