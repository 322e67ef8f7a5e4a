"""The page at `/docs` that shows the API and can call it: Swagger UI.

Only Swagger UI's files are used from the package fastapi-offline. Its page has an
inline script, which the Content-Security-Policy here refuses. All addresses in our page
are relative, so it works behind any path prefix and names no host.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from hashlib import sha256
from importlib.resources import files
from mimetypes import guess_type
from typing import Final
from urllib.parse import urlsplit

from starlette.requests import Request
from starlette.responses import HTMLResponse, Response
from starlette.routing import BaseRoute, Route

from issuer.http.documents import Document, cut

PATH: Final = "/docs"
_ASSETS: Final = ("favicon.png", "swagger-ui-bundle.js", "swagger-ui.css")
_PAGE: Final = """\
<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>Gatehouse issuer API</title>
<link rel="icon" href="docs/favicon.png">
<link rel="stylesheet" href="docs/swagger-ui.css">
</head>
<body>
<noscript>This page needs JavaScript. The API is described in openapi.json.</noscript>
<div id="swagger-ui"></div>
<script src="docs/swagger-ui-bundle.js"></script>
<script src="docs/start.js"></script>
</body>
</html>
"""
# Without validatorUrl the page would send the document's address to swagger.io. Input
# under "Authorize" stays in the page's memory.
_START: Final = """\
SwaggerUIBundle({
  url: "openapi.json",
  dom_id: "#swagger-ui",
  deepLinking: true,
  persistAuthorization: false,
  queryConfigEnabled: false,
  validatorUrl: null,
});
"""


def build_routes(issuer_url: str) -> list[BaseRoute]:
    """Return the routes of the page, its script and its files.

    Args:
        issuer_url: the target of the page's calls.
    """
    headers = _build_headers(issuer_url)

    async def show_page(_request: Request) -> Response:
        return HTMLResponse(_PAGE, headers=headers)

    async def show_start(_request: Request) -> Response:
        return Response(_START, headers=headers, media_type="text/javascript")

    return [
        Route(PATH, show_page),
        Route(f"{PATH}/start.js", show_start),
        *(Route(f"{PATH}/{name}", _Asset(name, headers).show) for name in _ASSETS),
    ]


def _build_headers(issuer_url: str) -> dict[str, str]:
    own = urlsplit(issuer_url)
    policy = {
        "default-src": "'none'",
        "script-src": "'self'",
        "style-src": "'self'",
        "img-src": "'self' data:",
        "connect-src": f"'self' {own.scheme}://{own.netloc}",
        "base-uri": "'none'",
        "form-action": "'none'",
        "frame-ancestors": "'none'",
    }
    return {
        "Content-Security-Policy": "; ".join(f"{k} {v}" for k, v in policy.items()),
        "Referrer-Policy": "no-referrer",
        "X-Content-Type-Options": "nosniff",
    }


@cache
def _read_asset(name: str) -> tuple[tuple[bytes, ...], str]:
    """Return a file's content in pieces, and its entity tag.

    Read once, before the workers are forked: they share these 1.7 MB.
    """
    content = files("fastapi_offline").joinpath("static", name).read_bytes()
    return cut(content), f'"{sha256(content).hexdigest()[:32]}"'


class _Asset:
    """One of Swagger UI's files; a browser revalidates its copy each time.

    It is kept in memory and sent in pieces: read from disk, 200 browsers that did not
    read their answers took a thread and 64 KiB each, 37 MB (R44).
    """

    def __init__(self, name: str, headers: Mapping[str, str]) -> None:
        pieces, self._tag = _read_asset(name)
        kind = guess_type(name)[0] or "application/octet-stream"
        self._headers = {**headers, "ETag": self._tag, "Cache-Control": "no-cache"}
        described = f"{kind}; charset=utf-8" if "text" in kind else kind
        self._document = Document(pieces, {**self._headers, "Content-Type": described})

    async def show(self, request: Request) -> Response:
        """Answer with the file, or with 304 if the browser's copy is current."""
        known = request.headers.get("If-None-Match", "").removeprefix("W/")
        if known == self._tag:
            return Response(status_code=304, headers=self._headers)
        return self._document.answer()
