"""The dependencies of routes: an access token, and a scope in it."""

import re
from collections.abc import Awaitable, Callable
from typing import Final

from fastapi.openapi.models import HTTPBearer
from fastapi.security.base import SecurityBase
from starlette.requests import Request

from issuer.clock import Clock, seconds
from issuer.errors import ForbiddenError, UnauthenticatedError
from issuer.http.authorization.administration import AdministrationRule
from issuer.http.authorization.principals import Principal
from issuer.http.authorization.scopes import ADMIN_SCOPE

# RFC 6750, section 2.1, the scheme in any case (RFC 9110, section 11.1). No comma: a
# proxy may join two credentials into one line (requirement R4).
_BEARER: Final = re.compile(r"[Bb][Ee][Aa][Rr][Ee][Rr] +([A-Za-z0-9._~+/-]+=*)")

#: Returns the principal of an access token, or raises.
VerifyToken = Callable[[str], Awaitable[Principal]]
#: Returns the principal of the request's access token, or raises.
Authenticated = Callable[[Request], Awaitable[Principal]]


class _ByAccessToken(SecurityBase):
    """The OpenAPI description of a route with an access token."""

    model = HTTPBearer(
        bearerFormat="JWT",
        description="An access token of a person or program, signed by this issuer.",
    )
    scheme_name = "accessToken"


class Authenticate(_ByAccessToken):
    """A dependency: the request's one Bearer token, verified.

    Args:
        verify: returns the principal of a valid token, or raises `UnauthenticatedError`
            or `UnavailableError`.
        administration: further rules for `gatehouse:admin`.
        clock: gives the time in milliseconds.
    """

    def __init__(
        self,
        verify: VerifyToken,
        administration: AdministrationRule,
        clock: Clock,
    ) -> None:
        self._verify = verify
        self._administration = administration
        self._clock = clock

    async def __call__(self, request: Request) -> Principal:
        """Return whom the request's access token speaks about.

        Raises:
            UnauthenticatedError: without exactly one `Authorization: Bearer`, or when
                its token does not count.
            UnavailableError: when the database is away.
        """
        return await self._verify(read_bearer(request))

    def require_scope(self, scope: str) -> Authenticated:
        """Return a dependency that also requires `scope`.

        It raises as a call does, `ForbiddenError` when the scope is missing, and for
        `gatehouse:admin` as `require_administration` does.
        """
        return _AuthenticateWithScope(self, scope)

    def require_administration(self, principal: Principal) -> None:
        """Return when this token may administer.

        Raises:
            ForbiddenError: when the scope is missing.
            InsufficientAuthenticationError: when another login is needed.
        """
        self._administration.require(principal, seconds(self._clock))


class _AuthenticateWithScope(_ByAccessToken):
    def __init__(self, authenticate: Authenticate, scope: str) -> None:
        self._authenticate = authenticate
        self._scope = scope

    async def __call__(self, request: Request) -> Principal:
        principal = await self._authenticate(request)
        if self._scope not in principal.scopes:
            raise ForbiddenError
        if self._scope == ADMIN_SCOPE:
            self._authenticate.require_administration(principal)
        return principal


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
