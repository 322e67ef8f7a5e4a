"""Rules for administrators' tokens beyond the scope: a recent login, a second factor.

Both are off by default and checked on every call of a person. A client's own token has
no login and is exempt. A personal key's token is of a person without a login, and is
refused while a rule is on.
"""

from __future__ import annotations

from dataclasses import dataclass

from issuer.errors import ForbiddenError, InsufficientAuthenticationError
from issuer.http.authorization.login_methods import ACR_SECOND_FACTOR, find_acr
from issuer.http.authorization.principals import Principal
from issuer.http.authorization.scopes import ADMIN_SCOPE
from shared.claims import CLOCK_ALLOWANCE


@dataclass(frozen=True, slots=True)
class AdministrationRule:
    """The rules that are on.

    Attributes:
        max_login_age: greatest seconds since the login; 0: no limit.
        needs_second_factor: whether the login must have had one.
    """

    max_login_age: int = 0
    needs_second_factor: bool = False

    def require(self, principal: Principal, now: int) -> None:
        """Return when this token may administer.

        Args:
            principal: whose token it is.
            now: Unix seconds.

        Raises:
            ForbiddenError: when it lacks the scope.
            InsufficientAuthenticationError: when its login is too old, or had only one
                factor (RFC 9470).
        """
        if ADMIN_SCOPE not in principal.scopes:
            raise ForbiddenError
        if principal.is_client:
            return
        age = now - principal.auth_time
        # Another replica's clock may be slightly ahead; a login further in the future
        # is not valid.
        is_recent = -CLOCK_ALLOWANCE <= age <= self.max_login_age
        is_login = not principal.is_personal_key
        if self.max_login_age and not (is_login and is_recent):
            raise self._refuse()
        has_second_factor = find_acr(principal.amr) == ACR_SECOND_FACTOR
        if self.needs_second_factor and not (is_login and has_second_factor):
            raise self._refuse()

    def _refuse(self) -> InsufficientAuthenticationError:
        acr = ACR_SECOND_FACTOR if self.needs_second_factor else None
        return InsufficientAuthenticationError(acr, self.max_login_age or None)
