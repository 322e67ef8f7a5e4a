"""The public keys and the server metadata, for anybody (RFC 7517, RFC 8414)."""

from typing import Any, Final

import orjson
from fastapi import APIRouter, Request, Response

from issuer.keys.store import KeyStore

JWKS_PATH: Final = "/.well-known/jwks.json"
METADATA_PATH: Final = "/.well-known/oauth-authorization-server"
#: RFC 9111, section 5.2.2; RFC 5861. `ISSUER_KEY_PUBLISH_AHEAD` is to be twice max-age.
CACHE_CONTROL: Final = (
    "public, max-age=300, stale-while-revalidate=60, stale-if-error=86400"
)
_EXAMPLE: Final[dict[str, Any]] = {
    "keys": [
        {
            "kty": "RSA",
            "use": "sig",
            "alg": "RS256",
            "kid": "NzbLsXh8uDCcd-6MNwXF4W_7noWXFZAfHkxZsRGC9Xs",
            "n": "0vx7agoebGcQSuuPiLJXZptN9nndrQmbXEps2aiAFbWhM78LhWx4cbbfAAtVT86z...",
            "e": "AQAB",
        }
    ]
}


def build_router(
    store: KeyStore, issuer_url: str, extra_metadata: dict[str, Any]
) -> APIRouter:
    """Return the two well-known routes.

    Args:
        store: the published keys.
        issuer_url: base of every URL told; never the request's `Host` (R37).
        extra_metadata: members of other parts: scopes, grant types and the like.
    """
    router = APIRouter(tags=["public keys"])
    metadata = orjson.dumps(_build_metadata(issuer_url) | extra_metadata)

    @router.head(JWKS_PATH, include_in_schema=False)
    @router.get(
        JWKS_PATH,
        summary="Public signing keys (JWKS)",
        responses={
            200: {"content": {"application/jwk-set+json": {"example": _EXAMPLE}}}
        },
    )
    async def publish_keys(request: Request) -> Response:
        """Return the JWKS, or 304 when the client has it already."""
        published = await store.published_keys()
        headers = {"ETag": published.etag, "Cache-Control": CACHE_CONTROL}
        if _has(request.headers.getlist("If-None-Match"), published.etag):
            # RFC 9110, section 15.4.5: a 304 repeats what would update the cache.
            return Response(status_code=304, headers=headers)
        return Response(
            published.body, headers=headers, media_type="application/jwk-set+json"
        )

    @router.head(METADATA_PATH, include_in_schema=False)
    @router.get(
        METADATA_PATH,
        summary="Authorization server metadata (RFC 8414)",
        responses={200: {"content": {"application/json": {}}}},
    )
    async def tell_metadata() -> Response:
        """Return where the endpoints are and what they take."""
        return Response(
            metadata,
            headers={"Cache-Control": CACHE_CONTROL},
            media_type="application/json",
        )

    return router


def _build_metadata(issuer_url: str) -> dict[str, Any]:
    methods = ["client_secret_basic", "client_secret_post"]
    return {
        "issuer": issuer_url,
        "jwks_uri": issuer_url + JWKS_PATH,
        "token_endpoint": issuer_url + "/oauth2/token",
        "token_endpoint_auth_methods_supported": methods,
        # RFC 8414, section 2 requires the member; there is no authorization endpoint.
        "response_types_supported": [],
        "revocation_endpoint": issuer_url + "/oauth2/revoke",
        "revocation_endpoint_auth_methods_supported": methods,
        "introspection_endpoint": issuer_url + "/oauth2/introspect",
        "introspection_endpoint_auth_methods_supported": methods,
        "revocation_feed_uri": issuer_url + "/revocations",
    }


def _has(if_none_match: list[str], etag: str) -> bool:
    """RFC 9110, section 13.1.2: weak comparison with any of the list, or `*`."""
    tags = [tag.strip() for tag in ",".join(if_none_match).split(",")]
    return any(tag.removeprefix("W/") == etag or tag == "*" for tag in tags)
