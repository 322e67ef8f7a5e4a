"""Composes second factors."""

from dataclasses import dataclass
from urllib.parse import urlsplit

from issuer.foundation import Foundation, Package
from issuer.login.parts import LoginParts
from issuer.second_factor import second_factor_routes
from issuer.second_factor.second_factor import SecondFactors


@dataclass(frozen=True, slots=True)
class SecondFactorParts(Package):
    """The parts of second factors."""

    factors: SecondFactors


def compose(base: Foundation, login: LoginParts) -> SecondFactorParts:
    """Return the parts."""
    settings = base.settings
    factors = SecondFactors(
        base.database,
        settings.key_encryption_keys,
        login.codes,
        login.password_proof,
        login.guesses,
        clock=base.clock,
        audit=base.audit,
        issuer_name=urlsplit(settings.url).hostname or settings.url,
    )
    return SecondFactorParts(
        factors, routers=(second_factor_routes.router,), provides=(factors,)
    )
