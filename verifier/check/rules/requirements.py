"""What a token that passed the seven checks must have besides (R8)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from verifier.check.claims import ClaimPath, Claims, Scalar
from verifier.check.denials import Denied, DenyReason


@dataclass(frozen=True, slots=True)
class Requirements:
    """What a token that passed the seven checks must have besides.

    Attributes:
        required_scopes: all of these are needed.
        any_scopes: one of these is needed; empty for none.
        required_roles: one of these is needed; empty for none.
        client_ids: the client is one of these; empty for any.
        claims: one of the values is needed at each path.
        max_age: seconds since the token was minted (`iat`), at most; 0 for any.
        max_auth_age: seconds since the person logged in (`auth_time`), at most; 0 for
            any.
    """

    required_scopes: frozenset[str] = frozenset()
    any_scopes: frozenset[str] = frozenset()
    required_roles: frozenset[str] = frozenset()
    client_ids: frozenset[str] = frozenset()
    claims: tuple[tuple[ClaimPath, tuple[Scalar, ...]], ...] = ()
    max_age: int = 0
    max_auth_age: int = 0

    def check(self, claims: Claims, now: int, leeway: int) -> None:
        """Check that the claims have all of this.

        Args:
            claims: verified claims.
            now: Unix seconds.
            leeway: seconds clocks may differ.

        Raises:
            Denied: `scope_insufficient`, `role_missing`, `client_not_allowed`,
                `claim_mismatch`, `token_too_old`, `authentication_too_old`.
        """
        if self is NO_REQUIREMENTS:
            return
        if not self.required_scopes.issubset(claims.scopes):
            raise Denied(DenyReason.SCOPE_INSUFFICIENT)
        if self.any_scopes and self.any_scopes.isdisjoint(claims.scopes):
            raise Denied(DenyReason.SCOPE_INSUFFICIENT)
        if self.required_roles and self.required_roles.isdisjoint(claims.roles):
            raise Denied(DenyReason.ROLE_MISSING)
        if self.client_ids and claims.client_id not in self.client_ids:
            raise Denied(DenyReason.CLIENT_NOT_ALLOWED)
        for path, accepted in self.claims:
            if not _have_one(claims.kept.get(path, ()), accepted):
                raise Denied(DenyReason.CLAIM_MISMATCH)
        if self.max_age and now - leeway > claims.iat + self.max_age:
            raise Denied(DenyReason.TOKEN_TOO_OLD)
        # Without `auth_time` it is 0: no login is known (RFC 9470, section 6.2). One in
        # the future is no login either.
        if self.max_auth_age and not (
            now - leeway - self.max_auth_age <= claims.auth_time <= now + leeway
        ):
            raise Denied(DenyReason.AUTHENTICATION_TOO_OLD)


def _have_one(values: tuple[Scalar, ...], accepted: tuple[Scalar, ...]) -> bool:
    """Return whether a value is accepted. True is no 1 here, as in JSON."""
    for value in values:
        for wanted in accepted:
            if value == wanted and type(value) is type(wanted):
                return True
    return False


#: Asks nothing.
NO_REQUIREMENTS: Final = Requirements()
