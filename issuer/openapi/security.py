"""What the OpenAPI document says of credentials other than access tokens.

Those are described by the dependency that reads them: `dependencies.py`.
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
#: For `openapi_extra` of routes that read another credential than an access token.
BY_CLIENT: Final[dict[str, Any]] = {"security": [{"client": []}, {}]}
BY_FEED_TOKEN: Final[dict[str, Any]] = {"security": [{"feedToken": []}]}
