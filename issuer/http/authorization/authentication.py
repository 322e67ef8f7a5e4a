"""The dependencies of routes: an access token, and the right to administer."""

import re
from collections.abc import Awaitable, Callable
from typing import Annotated, Final

from fastapi import Depends
from fastapi.openapi.models import HTTPBearer
from fastapi.security.base import SecurityBase
from starlette.requests import Request

from issuer.clock import seconds
from issuer.errors import UnauthenticatedError
from issuer.foundation import Foundation
from issuer.http.authorization.administration import AdministrationRule
from issuer.http.authorization.principals import Principal
from issuer.http.dependencies import PartOf

# RFC 6750, section 2.1, the scheme in any case (RFC 9110, section 11.1). No comma: a
# proxy may join two credentials into one line (requirement R4).
_BEARER: Final = re.compile(r"[Bb][Ee][Aa][Rr][Ee][Rr] +([A-Za-z0-9._~+/-]+=*)")

#: Returns the principal of an access token, or raises.
VerifyToken = Callable[[str], Awaitable[Principal]]


class _ByAccessToken(SecurityBase):
    """The OpenAPI description of a route with an access token."""

    model = HTTPBearer(
        bearerFormat="JWT",
        description="An access token of a person or program, signed by this issuer.",
    )
    scheme_name = "accessToken"


class Authentication:
    """Finds the principal of a token, and whether it may administer.

    Args:
        base: gives the clock and the settings of the rules for `gatehouse:admin`.
        verify: returns the principal of a valid token, or raises `UnauthenticatedError`
            or `UnavailableError`.
    """

    def __init__(self, base: Foundation, verify: VerifyToken) -> None:
        self.verify = verify
        self._administration = AdministrationRule(
            base.settings.admin_max_login_age, base.settings.admin_second_factor
        )
        self._clock = base.clock

    def require_administration(self, principal: Principal) -> None:
        """Return when this token may administer.

        Raises:
            ForbiddenError: when the scope is missing.
            InsufficientAuthenticationError: when another login is needed.
        """
        self._administration.require(principal, seconds(self._clock))


_AUTHENTICATION: Final = PartOf(Authentication)


async def authenticate(request: Request) -> Principal:
    """Return the principal of the request's one Bearer token.

    Raises:
        UnauthenticatedError: without exactly one `Authorization: Bearer`, or when its
            token is not valid.
        UnavailableError: when the database is away.
    """
    return await _AUTHENTICATION.find(request).verify(read_bearer(request))


def require_administration(request: Request, principal: Principal) -> None:
    """Return when this token may administer.

    Raises:
        ForbiddenError: when the scope is missing.
        InsufficientAuthenticationError: when another login is needed.
    """
    _AUTHENTICATION.find(request).require_administration(principal)


class _Authenticate(_ByAccessToken):
    async def __call__(self, request: Request) -> Principal:
        return await authenticate(request)


class _AuthenticateAdministrator(_ByAccessToken):
    async def __call__(self, request: Request) -> Principal:
        principal = await authenticate(request)
        require_administration(request, principal)
        return principal


#: The principal of the request's access token.
Authenticated = Annotated[Principal, Depends(_Authenticate())]
#: The same, and it may administer.
Administrator = Annotated[Principal, Depends(_AuthenticateAdministrator())]


def read_bearer(request: Request) -> str:
    """Return the token of the request's one `Authorization: Bearer` header.

    Raises:
        UnauthenticatedError: when there is none, more than one, or another scheme.
    """
    given = request.headers.getlist("Authorization")
    if not given:
        raise UnauthenticatedError(is_missing=True)
    match = _BEARER.fullmatch(given[0])
    if len(given) > 1 or match is None:
        raise UnauthenticatedError(detail="not exactly one Bearer credential")
    return match[1]
