"""Composes the change and the reset of passwords."""

from dataclasses import dataclass

from issuer.foundation import Foundation, Package
from issuer.hashing.parts import HashingParts
from issuer.login.parts import LoginParts
from issuer.passwords import password_change_routes, password_reset_routes
from issuer.passwords.password_change import PasswordChange
from issuer.passwords.password_reset import PasswordReset
from issuer.sessions.parts import SessionsParts


@dataclass(frozen=True, slots=True)
class PasswordsParts(Package):
    """The parts of passwords."""

    change: PasswordChange
    reset: PasswordReset


def compose(
    base: Foundation, hashing: HashingParts, login: LoginParts, sessions: SessionsParts
) -> PasswordsParts:
    """Return the parts."""
    database, clock, audit = base.database, base.clock, base.audit
    hasher, pool, settings = hashing.hasher, hashing.pool, base.settings
    length = settings.password_min_length
    change = PasswordChange(
        database,
        login.password_proof,
        hasher,
        pool,
        sessions.sessions,
        login.completion,
        clock=clock,
        audit=audit,
        password_min_length=length,
    )
    reset = PasswordReset(
        database,
        hasher,
        pool,
        sessions.ending,
        login.throttling,
        clock=clock,
        audit=audit,
        password_min_length=length,
        token_ttl=settings.password_reset_ttl,
    )
    return PasswordsParts(
        change,
        reset,
        routers=(password_change_routes.router, password_reset_routes.router),
        provides=(change, reset),
    )
