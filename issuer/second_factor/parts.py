"""Composes second factors."""

from issuer.foundation import Foundation, Package
from issuer.login.parts import LoginParts
from issuer.second_factor import second_factor_routes
from issuer.second_factor.second_factor import SecondFactors


class SecondFactorParts(Package):
    """The parts of second factors."""

    routers = (second_factor_routes.router,)

    def __init__(self, base: Foundation, login: LoginParts) -> None:
        self.factors = SecondFactors(
            base, login.codes, login.password_proof, login.guesses
        )
        self.provides = (self.factors,)
