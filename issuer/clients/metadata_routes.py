"""The authorization server's metadata, for clients that set themselves up (RFC
8414).
"""

from collections.abc import Mapping, Sequence
from typing import Any, Final
from urllib.parse import urlsplit

import orjson
from fastapi import APIRouter, Request, Response

from issuer.clients.oauth_routes import INTROSPECT_PATH, REVOKE_PATH, TOKEN_PATH
from issuer.http.dependencies import PartOf
from issuer.keys.jwks_routes import CACHE_CONTROL, JWKS_PATH

METADATA_PATH: Final = "/.well-known/oauth-authorization-server"
_CONFIDENTIAL: Final = ("client_secret_basic", "client_secret_post")
#: `none`: the first party names itself and has no secret.
_ANY_CLIENT: Final = (*_CONFIDENTIAL, "none")


class Metadata:
    """The document about this issuer, and its route.

    Args:
        issuer_url: the `iss` of every token.
        grant_types: those the token endpoint takes.
        more: further members.

    Attributes:
        body: the document as it is sent.
    """

    def __init__(
        self, issuer_url: str, grant_types: Sequence[str], more: Mapping[str, str]
    ) -> None:
        self._issuer_url = issuer_url
        self._own = _build_members(issuer_url, grant_types)
        self.body = orjson.dumps({**self._own, **more})

    def build_router(self) -> APIRouter:
        """Return the route, whose path and example depend on the settings."""
        router = APIRouter(tags=["oauth2"])
        content = {"application/json": {"example": self._own}}
        # RFC 8414, section 3.1: an issuer's own path goes behind the well-known one.
        own_path = urlsplit(self._issuer_url).path
        for path in sorted({METADATA_PATH, METADATA_PATH + own_path}):
            router.add_api_route(
                path,
                tell_metadata,
                methods=["GET"],
                summary="Authorization server metadata (RFC 8414)",
                response_class=Response,
                responses={200: {"content": content}},
                include_in_schema=path == METADATA_PATH,
            )
            router.add_api_route(
                path, tell_metadata, methods=["HEAD"], include_in_schema=False
            )
        return router


_METADATA: Final = PartOf(Metadata)


async def tell_metadata(request: Request) -> Response:
    """Return where the endpoints are and what they take."""
    return Response(
        _METADATA.find(request).body,
        headers={"Cache-Control": CACHE_CONTROL},
        media_type="application/json",
    )


def _build_members(issuer_url: str, grant_types: Sequence[str]) -> dict[str, Any]:
    """Return the members that RFC 8414, section 2, names, and the feed's URL.

    Args:
        issuer_url: the `iss` of every token, and the base of every URL given; never the
            request's `Host` (R37).
        grant_types: those the token endpoint takes.
    """
    return {
        "issuer": issuer_url,
        "jwks_uri": issuer_url + JWKS_PATH,
        "token_endpoint": issuer_url + TOKEN_PATH,
        "token_endpoint_auth_methods_supported": _ANY_CLIENT,
        "grant_types_supported": grant_types,
        # RFC 8414, section 2 requires the member; there is no authorization endpoint.
        "response_types_supported": [],
        "revocation_endpoint": issuer_url + REVOKE_PATH,
        "revocation_endpoint_auth_methods_supported": _ANY_CLIENT,
        "introspection_endpoint": issuer_url + INTROSPECT_PATH,
        "introspection_endpoint_auth_methods_supported": _CONFIDENTIAL,
        "revocation_feed_uri": issuer_url + "/revocations",
    }
