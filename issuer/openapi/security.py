"""The OpenAPI description of credentials other than access tokens.

Access tokens are described by `http/authorization/authentication.py`, which reads them.
"""

from __future__ import annotations

from typing import Any, Final

#: By name.
SCHEMES: Final[dict[str, Any]] = {
    "client": {
        "type": "http",
        "scheme": "basic",
        "description": "Client id and secret (RFC 6749, section 2.3.1); both may stand in "
        "the form instead, as `client_id` and `client_secret`.",
    },
    "feedToken": {
        "type": "http",
        "scheme": "bearer",
        "description": "What verifiers show: ISSUER_FEED_TOKEN.",
    },
}
#: For `openapi_extra` of routes with another credential than an access token.
BY_CLIENT: Final[dict[str, Any]] = {"security": [{"client": []}, {}]}
BY_FEED_TOKEN: Final[dict[str, Any]] = {"security": [{"feedToken": []}]}
