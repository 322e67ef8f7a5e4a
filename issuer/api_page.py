"""The page at `/docs` that shows the API and tries calls: Swagger UI.

The package fastapi-offline carries Swagger UI's files; only those are taken from it. Its
own page is not used: that page has inline script, which the Content-Security-Policy here
refuses. All addresses in the page are relative to it, so it works behind any path prefix
and names no host.
"""

from __future__ import annotations

from importlib.resources import files
from typing import Final
from urllib.parse import urlsplit

from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import HTMLResponse, Response
from starlette.routing import BaseRoute, Mount, Route
from starlette.staticfiles import StaticFiles
from starlette.types import Scope

PATH: Final = "/docs"
_ASSETS: Final = frozenset({"favicon.png", "swagger-ui-bundle.js", "swagger-ui.css"})
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
# Without validatorUrl the page would send the document's address to swagger.io. What is
# typed under "Authorize" stays in the page's memory and ends with it.
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
        issuer_url: where the page may send the calls that it tries.
    """
    headers = _build_headers(issuer_url)

    async def show_page(_request: Request) -> Response:
        return HTMLResponse(_PAGE, headers=headers)

    async def show_start(_request: Request) -> Response:
        return Response(_START, headers=headers, media_type="text/javascript")

    return [
        Route(PATH, show_page),
        Route(f"{PATH}/start.js", show_start),
        Mount(PATH, _Assets(headers)),
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


class _Assets(StaticFiles):
    """Swagger UI's files; a browser asks each time whether its copy is still good."""

    def __init__(self, headers: dict[str, str]) -> None:
        super().__init__(directory=str(files("fastapi_offline").joinpath("static")))
        self._headers = headers

    async def get_response(self, path: str, scope: Scope) -> Response:
        """Answer one of the three; the package holds more."""
        if path not in _ASSETS:
            raise HTTPException(status_code=404)
        response = await super().get_response(path, scope)
        response.headers.update({**self._headers, "Cache-Control": "no-cache"})
        return response
