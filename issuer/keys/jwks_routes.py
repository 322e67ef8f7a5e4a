"""The public keys, for anybody (RFC 7517)."""

from typing import Any, Final

from fastapi import APIRouter, Request, Response

from issuer.http.dependencies import PartOf
from issuer.http.strict_json import PlainRoute
from issuer.keys.follower_keys import FollowerKeyReports
from issuer.keys.key_changes import MAX_AGE
from issuer.keys.store import KeyStore
from shared.feed import FOLLOWER_HEADER

JWKS_PATH: Final = "/.well-known/jwks.json"
#: RFC 9111, section 5.2.2; RFC 5861. `ISSUER_KEY_PUBLISH_AHEAD` is to be twice max-age.
CACHE_CONTROL: Final = (
    f"public, max-age={MAX_AGE}, stale-while-revalidate=60, stale-if-error=86400"
)
#: While the database is away: another replica may know of a key that is not in it.
_LAST_CACHE_CONTROL: Final = "public, max-age=5, stale-if-error=86400"
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
_HEADERS: Final[list[dict[str, Any]]] = [
    {
        "name": "If-None-Match",
        "in": "header",
        "description": "The ETag of what the client has.",
        "schema": {"type": "string"},
    },
    {
        "name": FOLLOWER_HEADER,
        "in": "header",
        "description": "A verifier process's own UUID, as it shows to the feed: a new "
        "key signs once every verifier has it.",
        "schema": {"type": "string"},
    },
]


router = APIRouter(route_class=PlainRoute, tags=["public keys"])
_STORE: Final = PartOf(KeyStore)
_REPORTS: Final = PartOf(FollowerKeyReports)


@router.head(JWKS_PATH, include_in_schema=False)
@router.get(
    JWKS_PATH,
    summary="Public signing keys (JWKS)",
    responses={
        200: {"content": {"application/jwk-set+json": {"example": _EXAMPLE}}},
        304: {"description": "Not changed since `If-None-Match`."},
    },
    openapi_extra={"parameters": _HEADERS},
)
async def publish_keys(request: Request) -> Response:
    """Return the JWKS, or 304 when the client has it already."""
    published = await _STORE.find(request).published_keys()
    cached = CACHE_CONTROL if published.is_current else _LAST_CACHE_CONTROL
    headers = {"ETag": published.etag, "Cache-Control": cached}
    is_had = has_etag(request.headers.getlist("If-None-Match"), published.etag)
    for follower_id in request.headers.getlist(FOLLOWER_HEADER)[:1]:
        _REPORTS.find(request).note(follower_id, published.etag if is_had else "")
    if is_had:
        # RFC 9110, section 15.4.5: a 304 repeats what would update the cache.
        return Response(status_code=304, headers=headers)
    return Response(
        published.body, headers=headers, media_type="application/jwk-set+json"
    )


def has_etag(if_none_match: list[str], etag: str) -> bool:
    """Tell whether the client has this representation already.

    RFC 9110, section 13.1.2: weak comparison with any of the list, or `*`.

    Args:
        if_none_match: every `If-None-Match` header of the request.
        etag: the present representation's, quoted.
    """
    tags = [tag.strip() for tag in ",".join(if_none_match).split(",")]
    return any(tag.removeprefix("W/") == etag or tag == "*" for tag in tags)
