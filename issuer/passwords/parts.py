"""Composes the change and the reset of passwords."""

from issuer.foundation import Foundation, Package
from issuer.hashing.parts import HashingParts
from issuer.login.parts import LoginParts
from issuer.passwords import password_change_routes, password_reset_routes
from issuer.passwords.password_change import PasswordChange
from issuer.passwords.password_reset import PasswordReset
from issuer.sessions.parts import SessionsParts


class PasswordsParts(Package):
    """The parts of passwords."""

    routers = (password_change_routes.router, password_reset_routes.router)

    def __init__(
        self,
        base: Foundation,
        hashing: HashingParts,
        login: LoginParts,
        sessions: SessionsParts,
    ) -> None:
        new = hashing.new_passwords
        self.change = PasswordChange(
            base, login.password_proof, new, sessions.sessions, login.completion
        )
        self.reset = PasswordReset(base, new, sessions.ending, login.throttling)
        self.provides = (self.change, self.reset)
