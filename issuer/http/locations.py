"""`Location` of what was created: the configured URL, never the request's `Host`
(R37).
"""

from starlette.requests import Request
from starlette.responses import Response


def set_location(request: Request, response: Response, path: str) -> None:
    """Set `Location` to a path of the issuer."""
    response.headers["Location"] = request.app.state.issuer_url + path
